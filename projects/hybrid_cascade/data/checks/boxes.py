"""Boxes that a training would take wrongly, or that no detector can find."""

import numpy as np
from detectron2.structures import BoxMode

from .chunk import Chunk
from .numbers import flatten, short
from .report import Kind, Level

# Annotation tools round coordinates up, and draw to the border of the image and a little over it.
TOLERANCE_PIXELS = 2.0
TOLERANCE_FRACTION = 0.02

NO_BOX = Kind(
    "annotations without a box",
    "`bbox` is a list of four numbers, [x, y, width, height] in COCO's format, in pixels. Add it.",
)
NOT_FINITE = Kind("boxes that are not finite", "Correct them, or remove the annotations.")
NEGATIVE = Kind(
    "boxes of negative width or height",
    "In COCO's format `bbox` is [x, y, width, height]. Correct the boxes.",
)
NORMALISED = Kind(
    "boxes with coordinates from 0 to 1",
    "Coordinates are pixels: multiply those that are fractions by the image's width and height.",
    Level.FREQUENT,
)
NO_AREA = Kind(
    "boxes without area",
    "They are not trained on, and can't be found. Correct the boxes, or remove the annotations.",
    Level.FREQUENT,
)
OUTSIDE = Kind(
    "boxes that reach out of their image",
    "`bbox` is [x, y, width, height] in COCO's format: if these are [x1, y1, x2, y2], convert them."
    " Otherwise correct them, or the image's `width` and `height`.",
    Level.FREQUENT,
)
CORNERS = Kind(
    "boxes that fit their masks as [x1, y1, x2, y2] only",
    "`bbox` is [x, y, width, height] in COCO's format. Convert them.",
)
OTHER_PLACE = Kind(
    "boxes and masks of one annotation in different places",
    "Compare the annotations with the images.",
    Level.ODD,
)
NO_MODE = Kind(
    "annotations without a `bbox_mode` that Detectron2 knows",
    "Set it to BoxMode.XYWH_ABS or BoxMode.XYXY_ABS.",
)


def check_boxes(chunk: Chunk, *, in_coco_format: bool) -> tuple[np.ndarray, np.ndarray]:
    """Report faults of "bbox".

    Args:
        chunk: the annotations.
        in_coco_format: boxes are [x, y, width, height]; otherwise "bbox_mode" says what they are.

    Returns:
        (N, 4) boxes as [x1, y1, x2, y2], NaN where there is none; and (N, 4) as they are written,
        NaN for modes other than [x, y, width, height].
    """
    rows = [a.get("bbox") for a in chunk.annotations]
    values, lengths, _ = flatten(rows)
    modes = [BoxMode.XYWH_ABS] * len(rows) if in_coco_format else _modes(chunk)
    is_rotated = np.array([mode == BoxMode.XYWHA_ABS for mode in modes], bool)
    has_box = lengths == 4 + is_rotated
    chunk.add_where(NO_BOX, ~has_box, lambda i: _written(chunk, i))
    ends = np.cumsum(lengths)
    written = np.full((len(rows), 4), np.nan)
    takes = has_box & ~is_rotated & np.array([mode is not None for mode in modes], bool)
    index = (ends - lengths)[takes][:, None] + np.arange(4)
    written[takes] = values[index]
    is_finite = np.isfinite(written).all(1)
    chunk.add_where(NOT_FINITE, takes & ~is_finite, lambda i: _written(chunk, i))
    is_xywh = np.array([mode == BoxMode.XYWH_ABS for mode in modes], bool)
    boxes = np.where(is_finite[:, None], written, np.nan)
    boxes[is_xywh, 2:] += boxes[is_xywh, :2]
    _check_extents(chunk, boxes, written)
    return boxes, np.where((is_xywh & is_finite)[:, None], written, np.nan)


def _modes(chunk: Chunk) -> list[BoxMode | None]:
    modes = [a.get("bbox_mode") for a in chunk.annotations]
    for index, mode in enumerate(modes):
        if mode not in (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS):
            if "bbox" in chunk.annotations[index]:
                chunk.add(NO_MODE, index, f"has the `bbox_mode` {short(mode)}")
            modes[index] = None
    return modes


def _written(chunk: Chunk, index: int) -> str:
    annotation = chunk.annotations[index]
    return f"has `bbox` {short(annotation['bbox'])}" if "bbox" in annotation else "has no `bbox`"


def _check_extents(chunk: Chunk, boxes: np.ndarray, written: np.ndarray) -> None:
    sides = boxes[:, 2:] - boxes[:, :2]  # comparisons with NaN are False
    is_negative = (sides < 0).any(1)
    is_normalised = (np.abs(written) <= 1).all(1) & (chunk.sizes > 4).all(1)
    rest = ~(is_negative | is_normalised)
    has_no_area = rest & (sides <= 0).any(1)
    rest &= ~has_no_area
    margin = np.maximum(TOLERANCE_PIXELS, TOLERANCE_FRACTION * chunk.sizes)
    is_outside = (boxes[:, :2] < -margin).any(1) | (boxes[:, 2:] > chunk.sizes + margin).any(1)
    is_outside |= (boxes[:, :2] >= chunk.sizes).any(1) | (boxes[:, 2:] <= 0).any(1)
    for kind, found in (
        (NEGATIVE, is_negative),
        (NORMALISED, is_normalised),
        (NO_AREA, has_no_area),
        (OUTSIDE, rest & is_outside),
    ):
        chunk.add_where(kind, found, lambda i: f"{_written(chunk, i)} in {size_of(chunk, i)}")


def size_of(chunk: Chunk, index: int) -> str:
    """Return the size of the image of an annotation, in words."""
    width, height = chunk.sizes[index]
    return "its image" if np.isnan(width) else f"an image of {width:g}x{height:g} pixels"


def compare_with_masks(
    chunk: Chunk, boxes: np.ndarray, written: np.ndarray, extents: np.ndarray
) -> None:
    """Report boxes that are not where the masks are.

    Args:
        chunk: the annotations.
        boxes: (N, 4) [x1, y1, x2, y2].
        written: (N, 4) [x, y, width, height].
        extents: (N, 4) [x1, y1, x2, y2] of the masks; NaN where there are none.
    """
    # A pixel more each way, so that thin objects and rounded boxes are no difference.
    fit = _iou(boxes, extents)
    is_corners = (_iou(written, extents) > 0.9) & (fit < 0.7)
    for kind, found in ((CORNERS, is_corners), (OTHER_PLACE, (fit < 0.1) & ~is_corners)):
        chunk.add_where(
            kind,
            found,
            lambda i: (
                f"{_written(chunk, i)}, and a mask from ({extents[i, 0]:g}, {extents[i, 1]:g}) to"
                f" ({extents[i, 2]:g}, {extents[i, 3]:g})"
            ),
        )


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes [x1, y1, x2, y2], (N, 4) each, made a pixel larger on each side."""
    a, b = a + [-1, -1, 1, 1], b + [-1, -1, 1, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        shared = sides.clip(min=0).prod(1)
        areas = [(x[:, 2:] - x[:, :2]).clip(min=0).prod(1) for x in (a, b)]
        return shared / (areas[0] + areas[1] - shared)
