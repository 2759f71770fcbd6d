"""Many images of a dataset with their annotations in one picture."""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import Metadata, transforms
from detectron2.data.detection_utils import read_image
from tqdm import tqdm

from .class_colors import thing_color, thing_name
from .instances import draw_annotations
from .layout import compose

TILE = (240, 320)  # height, width in pixels
TITLE_LENGTH = 32


def draw_contact_sheet(
    dataset_dicts: Sequence[dict], metadata: Metadata, *, columns: int = 6
) -> np.ndarray:
    """Draw images with their annotations under the ends of their paths, and a legend.

    Args:
        dataset_dicts: at least one image in Detectron2's format.
        metadata: see `draw_cascade_panel`.
        columns: the images of a row.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    tiles, classes = [], set()
    for image in tqdm(dataset_dicts, desc="Drawing", unit="image", delay=3, leave=False):
        tiles.append((_title(image["file_name"]), _draw(image, metadata)))
        classes |= {annotation["category_id"] for annotation in image.get("annotations", ())}
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    legend = [(thing_name(c, metadata), thing_color(c, metadata)) for c in sorted(classes)]
    return compose(rows, legend)


def _title(path: str) -> str:
    return path if len(path) <= TITLE_LENGTH else f"…{path[1 - TITLE_LENGTH :]}"


def _draw(image: dict, metadata: Metadata) -> np.ndarray:
    """Return the image with its annotations in the middle of a tile."""
    pixels = read_image(image["file_name"], "RGB")
    height, width = pixels.shape[:2]
    scale = min(TILE[0] / height, TILE[1] / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    resized = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
    resize = transforms.ResizeTransform(height, width, *size)
    drawn = draw_annotations(resized, image, resize, metadata)
    tile = np.full((*TILE, 3), 255, np.uint8)
    top, left = (TILE[0] - size[0]) // 2, (TILE[1] - size[1]) // 2
    tile[top : top + size[0], left : left + size[1]] = drawn
    return tile
