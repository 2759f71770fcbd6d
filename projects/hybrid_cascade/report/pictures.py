"""Images, masks and label maps as texts, for a page that has everything in itself."""

import base64
import io
import os

import cv2
import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from ..visualization.outlines import trace_outlines

MAX_SIDE = 640  # pixels of a picture on the page
JPEG_QUALITY = 82
PARTS_OF_A_PIXEL = 2  # along each axis, by which outlines are traced
FINEST = 480  # outlines have details of 1 / 480 of the longer side of the image


def image_uri(path: str | os.PathLike | None) -> tuple[str, tuple[int, int]] | None:
    """Return an image as a data URI of a JPEG file, reduced to `MAX_SIDE`.

    Returns:
        The URI, and the width and height of the image itself; None if there is no such file, or
        it can't be read.
    """
    if path is None or not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    size = picture.size
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return _uri("image/jpeg", file), size


def label_map_uri(sem_seg: np.ndarray, colors: dict[int, tuple[int, int, int]]) -> str:
    """Return a label map as a data URI of a PNG file, reduced to `MAX_SIDE`.

    Args:
        sem_seg: (H, W) labels.
        colors: RGB in 0..255 of at most 256 labels; others stay transparent.
    """
    scale = min(1, MAX_SIDE / max(sem_seg.shape))
    height, width = (max(1, round(side * scale)) for side in sem_seg.shape)
    sem_seg = cv2.resize(
        sem_seg.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    rgba = np.zeros((height, width, 4), np.uint8)
    for label, color in colors.items():
        rgba[sem_seg == label] = (*color, 255)
    file = io.BytesIO()
    Image.fromarray(rgba).quantize(256, method=Image.Quantize.FASTOCTREE).save(
        file, "PNG", optimize=True
    )
    return _uri("image/png", file)


def mask_path(rle: dict) -> str:
    """Return the outlines of a mask as the path of an SVG, in pixels; "" for an empty mask.

    Holes are outlines too: fill by the rule "evenodd".
    """
    mask = coco_mask.decode(rle)
    tolerance = max(mask.shape) / FINEST
    path = []
    for points in trace_outlines(
        mask, parts=PARTS_OF_A_PIXEL, with_holes=True, tolerance=tolerance
    ):
        if len(points) > 2:
            path.append("M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in points) + "Z")
    return "".join(path)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
