"""Annotations of the toy scenes in COCO's formats, for instances and panoptic segments.

An image has H x W pixels. Category ids are labels plus one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pycocotools.mask as mask_util

from .classes import OUTLINES, SEMANTIC_CLASSES, STUFF_LABELS, THING_CLASSES


@dataclass(kw_only=True)
class Segment:
    """A thing, a crowd of things, or all stuff of one kind in an image.

    label: the position of its class in `SEMANTIC_CLASSES`.
    visible: (H, W) bool, its pixels that nothing covers.
    """

    label: int
    visible: np.ndarray
    is_crowd: bool = False


def thing_categories() -> list[dict]:
    """Return the `categories` of instance annotations."""
    return [
        {"id": label + 1, "name": name, "supercategory": OUTLINES[name]}
        for label, name in enumerate(THING_CLASSES)
    ]


def panoptic_categories() -> list[dict]:
    """Return the `categories` of panoptic annotations: the things, then the stuff."""
    stuff = [
        {"id": label + 1, "name": SEMANTIC_CLASSES[label], "supercategory": "stuff"}
        for label in STUFF_LABELS
    ]
    return [x | {"isthing": 1} for x in thing_categories()] + [x | {"isthing": 0} for x in stuff]


def instance_annotation(segment: Segment) -> dict:
    """Return the instance annotation of a thing or a crowd, without its ids."""
    encode = run_lengths if segment.is_crowd else polygons
    return _common_fields(segment) | {"segmentation": encode(segment.visible)}


def panoptic_annotation(
    segments: Sequence[Segment], image_size: tuple[int, int]
) -> tuple[np.ndarray, list[dict]]:
    """Return the panoptic annotation of an image.

    Args:
        segments: the things, crowds and stuff of the image.
        image_size: H, W.

    Returns:
        (H, W, 3) uint8, the id of each pixel's segment as COCO's color; and the `segments_info`.
    """
    ids, segments_info = np.zeros(image_size, np.int32), []
    for segment_id, segment in enumerate(segments, start=1):
        segments_info.append({"id": segment_id} | _common_fields(segment))
        ids[segment.visible] = segment_id
    # id = R + 256 G + 256² B
    return np.stack([ids, ids >> 8, ids >> 16], axis=2).astype(np.uint8), segments_info


def _common_fields(segment: Segment) -> dict:
    """Return the fields that instance and panoptic annotations have in common."""
    rows, columns = np.nonzero(segment.visible)
    x, y = int(columns.min()), int(rows.min())
    return {
        "category_id": segment.label + 1,
        "iscrowd": int(segment.is_crowd),
        "area": len(rows),
        "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
    }


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outer borders of a mask as COCO's polygons. Holes are filled.

    Args:
        mask: (H, W) bool.

    Returns:
        [x0, y0, x1, y1, ...] for each piece, in pixels. (0, 0) is the image's upper left corner,
        not the center of a pixel.
    """
    zoom = 4
    # OpenCV joins the centers of border pixels. Enlarged, these are near the true border.
    enlarged = cv2.resize(
        mask.astype(np.uint8), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = [cv2.approxPolyDP(contour, 0.4 * zoom, closed=True) for contour in contours]
    return [
        ((contour.reshape(-1) + 0.5) / zoom).round(2).tolist()
        for contour in contours
        if len(contour) >= 3
    ]


def polygons_fit(mask: np.ndarray) -> bool:
    """Return whether `polygons` describes an (H, W) mask well: without holes, and not too small."""
    outlines = polygons(mask)
    if mask.sum() < 40 or not outlines:
        return False
    filled = mask_util.decode(mask_util.merge(mask_util.frPyObjects(outlines, *mask.shape)))
    filled = filled.astype(bool)
    return (filled & mask).sum() > 0.97 * (filled | mask).sum()


def run_lengths(mask: np.ndarray) -> dict:
    """Return COCO's uncompressed encoding of an (H, W) mask.

    Its `counts` are the lengths of the runs of 0, 1, 0, ..., column by column.
    """
    pixels = np.concatenate([[0], mask.flatten(order="F"), [1 - mask[-1, -1]]]).astype(int)
    counts = np.diff(np.flatnonzero(np.diff(pixels)), prepend=0)
    return {"size": list(mask.shape), "counts": counts.tolist()}
