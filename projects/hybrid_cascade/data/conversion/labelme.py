"""Read Labelme's files, one JSON file for each image.

Shapes of one label and one `group_id` are one object, whose mask is all of them. Polygons and
circles become outlines, masks become run lengths, holes included, and rectangles are boxes without
a mask, unless they are part of a mask.
"""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ..checks import READ_ERRORS, DatasetError
from ..checks.numbers import is_integer, short
from .coco_writer import LabelledImage, LabelledInstance
from .files import (
    box_around,
    check_polygon,
    check_size,
    circle,
    find_files,
    find_image,
    is_point,
    read_each,
    read_json,
)

FAR = 10  # images
SHAPES = ("polygon", "rectangle", "circle", "mask")


def read_labelme(folder: Path, image_root: Path) -> Iterator[LabelledImage]:
    """Yield the images of the JSON files in a folder and below it.

    Args:
        folder: of the JSON files.
        image_root: the folder of the images. `imagePath` is looked up beside its file, then here.

    Raises:
        DatasetError: names the file, the shape and its key.
    """
    paths = find_files(folder, (".json",))
    return read_each(paths, lambda path: _read(path, image_root))


def _read(path: Path, image_root: Path) -> LabelledImage:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DatasetError(f"'{path}' is no file of Labelme: it has no list `shapes`")
    name = content.get("imagePath")
    if not isinstance(name, str) or not name:
        raise DatasetError(f"'{path}' has `imagePath` {short(name)}")
    name = name.replace("\\", "/")
    candidates = [path.parent / name, image_root / name, image_root / Path(name).name]
    place = f"'{path}': `imagePath` {name!r}"
    file_name, width, height = find_image(candidates, image_root, place)
    written = content.get("imageWidth"), content.get("imageHeight")
    check_size(f"'{path}'", written, (width, height))
    groups: dict[Any, list[tuple[str, dict]]] = {}
    for index, shape in enumerate(content["shapes"]):
        place = f"'{path}': shape {index}"
        label, group = _label_and_group(shape, place)
        key = (index,) if group is None else (label, group)
        groups.setdefault(key, []).append((place, shape))
    instances = [_instance(shapes, width, height) for shapes in groups.values()]
    return LabelledImage(file_name, width, height, instances)


def _label_and_group(shape: Any, place: str) -> tuple[str, int | None]:
    if not isinstance(shape, dict):
        raise DatasetError(f"{place} is {short(shape)}, and no dict")
    label, group = shape.get("label"), shape.get("group_id")
    if not isinstance(label, str) or not label:
        raise DatasetError(f"{place} has `label` {short(label)}")
    if group is not None and not is_integer(group):
        raise DatasetError(f"{place} has `group_id` {short(group)}, but it is an integer or null")
    kind = shape.get("shape_type", "polygon")
    if kind not in SHAPES:
        raise DatasetError(
            f"{place} has `shape_type` {short(kind)}, which is no object; there are "
            f"{', '.join(SHAPES)}. Remove it, or draw a polygon."
        )
    return label, group


def _instance(shapes: list[tuple[str, dict]], width: int, height: int) -> LabelledInstance:
    place, first = shapes[0]
    polygons, bitmaps = [], []
    for shape_place, shape in shapes:
        if shape.get("shape_type") == "mask":
            bitmaps.append(_bitmap(shape, shape_place, width, height))
        else:
            polygons.append(_outline(shape, shape_place))
            # COCO's tools would draw for hours, or need all memory.
            if max(map(abs, polygons[-1])) > FAR * max(width, height):
                raise DatasetError(f"{shape_place} reaches far out of the image")
    if bitmaps:
        runs = [coco_mask.encode(np.asfortranarray(bitmap)) for bitmap in bitmaps]
        if polygons:
            runs += coco_mask.frPyObjects(polygons, height, width)
        runs = coco_mask.merge(runs)
        x, y, w, h = coco_mask.toBbox(runs).tolist()
        return LabelledInstance(first["label"], [x, y, x + w, y + h], runs, place)
    is_box = all(shape.get("shape_type") == "rectangle" for _, shape in shapes)
    box = box_around(polygons)
    return LabelledInstance(first["label"], box, None if is_box else polygons, place)


def _outline(shape: dict, place: str) -> list[float]:
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if kind == "polygon":
        return check_polygon(points, place)
    # A rectangle has two corners, or all four in newer files; a circle its center and a point.
    numbers = (2, 4) if kind == "rectangle" else (2,)
    is_list = isinstance(points, list) and len(points) in numbers
    if not is_list or not all(map(is_point, points)):
        raise DatasetError(f"{place} is a {kind} with the points {short(points)}")
    if kind == "circle":
        return circle(*points)
    x1, y1, x2, y2 = box_around(points)
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def _bitmap(shape: dict, place: str, width: int, height: int) -> np.ndarray:
    """Return (height, width) uint8 0 and 1 of a shape "mask": a PNG and where its corner is."""
    points, data = shape.get("points"), shape.get("mask")
    try:
        (x, y), _ = points
        left, top = int(x), int(y)
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as opened:
            if opened.width > width or opened.height > height:
                raise ValueError(f"it has {opened.width}x{opened.height} pixels")
            pixels = np.asarray(opened.convert("L")) > 0
    except (*READ_ERRORS, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{place} has a `mask` that can't be read: {error}") from error
    bitmap = np.zeros((height, width), np.uint8)
    if not (0 <= left <= width - pixels.shape[1] and 0 <= top <= height - pixels.shape[0]):
        raise DatasetError(
            f"{place} has a `mask` that reaches out of the image, at {short(points)}"
        )
    bitmap[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    if not bitmap.any():
        raise DatasetError(f"{place} has a `mask` without a pixel")
    return bitmap
