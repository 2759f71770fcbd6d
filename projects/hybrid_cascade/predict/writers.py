"""Write results in the formats of other tools.

Some formats have a file for each image, which is written when the image is done. Others are one
file for all images, which is made from the shards at the end.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from .inputs import IMAGE_SUFFIXES
from .result import DRAWING_SUFFIXES, Result, outlines

Record = dict[str, Any]


def write_drawing(result: Result, folder: Path, name: str) -> None:
    """Write the image with its detections: drawings/<name>."""
    path = folder / "drawings" / name
    if path.suffix.lower() not in DRAWING_SUFFIXES:
        path = Path(f"{path}.png")
    _write_image(path, result.draw())


def write_masks(result: Result, folder: Path, name: str) -> None:
    """Write a 16-bit PNG, masks/<name>.png: pixels have the number of their instance, or 0.

    Numbers are those of the detections, from 1 on; of instances that overlap, the better one shows.
    """
    numbers = np.zeros(result.image.shape[:2], np.uint16)
    for number, mask in reversed(list(enumerate(_masks_or_boxes(result), start=1))):
        numbers[mask] = number
    _write_image(folder / "masks" / f"{name}.png", numbers)


def write_labelme(result: Result, folder: Path, name: str) -> None:
    """Write Labelme's annotations, labelme/<name>.json: a polygon for each piece of an instance."""
    height, width = result.image.shape[:2]
    shapes, kind = [], "polygon"
    outlines_of = result.polygons()
    if outlines_of is None:
        outlines_of, kind = [[box.tolist()] for box in result.boxes], "rectangle"
    for number, (label, pieces) in enumerate(zip(result.class_names, outlines_of, strict=True)):
        for piece in pieces:
            shape = {"label": label, "points": np.reshape(piece, (-1, 2)).tolist()}
            shapes.append({**shape, "shape_type": kind, "group_id": number, "flags": {}})
    annotation = {
        "version": "5.0.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    _write_text(folder / "labelme" / f"{name}.json", json.dumps(annotation))


def write_yolo(result: Result, folder: Path, name: str) -> None:
    """Write YOLO's labels, yolo/<name>.txt without the suffix of the image, a line each.

    A line has the class and the outline as fractions of width and height; of an instance in several
    pieces, the largest. Without masks it has the center and the size of the box.
    """
    height, width = result.image.shape[:2]
    lines = []
    classes = result.instances.pred_classes.tolist()
    for number, (label, box) in enumerate(zip(classes, result.boxes, strict=True)):
        if result.masks is None:
            x1, y1, x2, y2 = box / (width, height, width, height)
            values = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        else:
            pieces = [np.reshape(p, (-1, 2)) for p in outlines(result.masks[number])]
            if not pieces:
                continue
            largest = max(pieces, key=lambda p: cv2.contourArea(p.astype(np.float32)))
            values = (largest / (width, height)).flatten()
        lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]))
    path = folder / "yolo" / name
    if path.suffix.lower() in IMAGE_SUFFIXES:  # frames of a video have none
        path = path.with_suffix("")
    _write_text(Path(f"{path}.txt"), "\n".join(lines))


PER_IMAGE: dict[str, Callable[[Result, Path, str], None]] = {
    "drawings": write_drawing,
    "masks": write_masks,
    "labelme": write_labelme,
    "yolo": write_yolo,
}


class Category(NamedTuple):
    """The id and the name of a class in a dataset."""

    id: int
    name: str


def merge_coco_results(
    records: Iterable[Record], path: Path, categories: Sequence[Category]
) -> None:
    """Write COCO's results: a list of detections with "image_id", to be evaluated or submitted."""
    _write_list(
        path,
        (
            {"image_id": image_id, **_with_category(detection, categories)}
            for image_id, record in _numbered(records)
            for detection in record["detections"]
        ),
    )


def merge_coco_dataset(
    records: Iterable[Record], path: Path, categories: Sequence[Category]
) -> None:
    """Write a dataset in COCO's format, whose annotations people can correct in a tool."""
    # There is one pass over the records, and two lists to write.
    images, annotations = path.with_suffix(".images"), path.with_suffix(".annotations")
    with images.open("w") as image_file, annotations.open("w") as annotation_file:
        number = 0
        for index, (image_id, record) in enumerate(_numbered(records)):
            image = {key: record[key] for key in ("height", "width")}
            image |= {"id": image_id, "file_name": record["name"]}
            image_file.write((",\n" if index else "") + json.dumps(image))
            for detection in record["detections"]:
                annotation = _annotation(detection, image_id, number + 1, categories)
                annotation_file.write((",\n" if number else "") + json.dumps(annotation))
                number += 1
    with path.open("w") as file:
        file.write(f'{{"categories": {json.dumps([c._asdict() for c in categories])},\n"images": [')
        for name, part in (("annotations", images), (None, annotations)):
            with part.open() as part_file:
                file.writelines(part_file)
            file.write(f'],\n"{name}": [' if name else "]}\n")
            part.unlink()


def merge_csv(records: Iterable[Record], path: Path, categories: Sequence[Category]) -> None:
    """Write a table with a row for each detection: name, class, score, box (XYXY), area."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "class", "score", "x1", "y1", "x2", "y2", "area"])
        for record in records:
            for detection in record["detections"]:
                x, y, width, height = detection["bbox"]
                table.writerow(
                    [record["name"], categories[detection["class"]].name, detection["score"]]
                    + [x, y, x + width, y + height, _area(detection)]
                )


# Format -> the name of its file, and what writes it.
MERGED: dict[str, tuple[str, Callable[[Iterable[Record], Path, Sequence[Category]], None]]] = {
    "coco-results": ("coco_results.json", merge_coco_results),
    "coco": ("coco.json", merge_coco_dataset),
    "csv": ("detections.csv", merge_csv),
}


def _numbered(records: Iterable[Record]) -> Iterator[tuple[int | str, Record]]:
    """Yield records with the ids of their images; those that have none are numbered from 1 on."""
    for number, record in enumerate(records, start=1):
        yield number if record["image_id"] is None else record["image_id"], record


def _with_category(detection: Record, categories: Sequence[Category]) -> Record:
    found = {key: value for key, value in detection.items() if key != "class"}
    return {"category_id": categories[detection["class"]].id, **found}


def _annotation(
    detection: Record, image_id: int | str, number: int, categories: Sequence[Category]
) -> Record:
    annotation = {"id": number, "image_id": image_id, "iscrowd": 0, "area": _area(detection)}
    annotation |= _with_category(detection, categories)
    if "segmentation" in detection:
        mask = coco_mask.decode(detection["segmentation"]).astype(bool)
        annotation["segmentation"] = outlines(mask)
    return annotation


def _area(detection: Record) -> float:
    if "segmentation" in detection:
        return float(coco_mask.area(detection["segmentation"]))
    return detection["bbox"][2] * detection["bbox"][3]


def _masks_or_boxes(result: Result) -> Iterator[np.ndarray]:
    if result.masks is not None:
        yield from result.masks
        return
    for x1, y1, x2, y2 in result.boxes.round().astype(int):
        mask = np.zeros(result.image.shape[:2], bool)
        mask[y1:y2, x1:x2] = True
        yield mask


def _write_list(path: Path, values: Iterable[Record]) -> None:
    with path.open("w") as file:
        file.write("[")
        for index, value in enumerate(values):
            file.write((",\n" if index else "\n") + json.dumps(value))
        file.write("\n]\n")


def _write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"'{path}' can't be written")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
