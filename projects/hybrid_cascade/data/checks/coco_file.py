"""Check a file of annotations in COCO's format as it is written, before anything is left out of it.

Detectron2's reader drops polygons, overwrites images of the same id, and crashes on corrupt run
lengths, and COCO's evaluation reads values that Detectron2's dicts do not have, "id" and "area".
"""

import json
import os
from collections import Counter
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from .boxes import check_boxes, compare_with_masks
from .chunk import Chunk, split
from .fields import check_crowd_flags
from .masks import check_masks
from .numbers import is_id, is_integer, is_number, short
from .progress import progress
from .report import DatasetError, Kind, Level, Report

ANNOTATIONS_AT_A_TIME = 10_000

NO_RECORD = Kind(
    "entries of `images`, `annotations` or `categories` that are no dicts", "Remove them."
)
IMAGE_ID = Kind(
    "image ids that are no integers", "Number the images, in `image_id` of the annotations too."
)
SAME_IMAGE_ID = Kind(
    "images of the same id",
    "All but the last are lost. Number the images, in `image_id` of the annotations too.",
)
SAME_FILE = Kind(
    "images of the same file", "Put the annotations of a file under one image.", Level.ODD
)
FILE_NAME = Kind(
    "images without a `file_name`", "Set it to the file's path below the folder of the images."
)
IMAGE_SIZE = Kind(
    "images without a size",
    "`width` and `height` are integers, at least 1, in pixels. Read them from the image file.",
)
ANNOTATION_ID = Kind("annotation ids that are no integers", "Number the annotations from 1 on.")
SAME_ANNOTATION_ID = Kind("annotations of the same id", "Number the annotations from 1 on.")
SAME_ID_IN_MINIVAL = Kind("annotations of the same id", "It is known of this file.", Level.ODD)
ID_ZERO = Kind(
    "annotation ids of 0 in a dataset to evaluate on",
    "COCO's evaluation takes such an object for one that is not found. Number the annotations from "
    "1 on.",
)
OF_NO_IMAGE = Kind(
    "annotations of images that are not in the file", "They are left out.", Level.ODD
)
WRONG_IMAGE_ID = Kind(
    "annotations whose `image_id` is no integer", "Set it to the `id` of one of `images`."
)
CATEGORY = Kind(
    "categories that can't be used",
    "Each has an `id`, an integer that no other has, and a `name`. Correct them.",
)
SAME_NAME = Kind("categories of the same name", "Compare the categories.", Level.ODD)
OF_NO_CATEGORY = Kind(
    "annotations of no category", "Set `category_id` to the `id` of one of `categories`."
)
IGNORED = Kind(
    "annotations with `ignore`",
    "Detectron2 does not support it. Set `iscrowd` to 1 instead, or remove the annotations.",
)
AREA = Kind(
    "annotations without an area in a dataset to evaluate on",
    "COCO's evaluation needs `area`, a number of pixels of at least 0: that of the mask, or width "
    "times height of the box.",
)
KEYPOINTS = Kind(
    "keypoints that are no triples of numbers", "`keypoints` is [x, y, visibility, ...]."
)
NO_ANNOTATIONS = Kind(
    "no annotations", "The detections on this dataset are written, but not measured.", Level.ODD
)


def has_coco_file(dataset_name: str) -> bool:
    """Tell whether a dataset has an annotation file in COCO's own format, which is there."""
    metadata = MetadataCatalog.get(dataset_name)
    json_file = metadata.get("json_file")
    # LVIS has COCO's format with other fields, and its own evaluation.
    is_coco = json_file is not None and metadata.get("evaluator_type") != "lvis"
    return is_coco and PathManager.isfile(json_file)


def check_coco_file(
    dataset_name: str, *, evaluation: bool = False, masks: bool = False, stop: bool = True
) -> None:
    """Raise `DatasetError` with all faults of the annotation file of a dataset; log oddities.

    The file is that of the metadata, `json_file`. Nothing else is opened.

    Args:
        dataset_name: the registered name.
        evaluation: the file is evaluated on, by COCO's evaluation, and not only trained on.
        masks: masks are evaluated too.
        stop: False: log faults of single images and annotations instead of raising them.

    Raises:
        DatasetError: says what is wrong, where, and what to do.
    """
    path = MetadataCatalog.get(dataset_name).json_file
    where = f"Dataset '{dataset_name}': the annotation file '{path}'"
    report = Report(where)
    examine_coco_file(read_coco_file(path, where), path, report, evaluation=evaluation, masks=masks)
    report.close(stop=stop)


def examine_coco_file(
    content: dict[str, list], path: str, report: Report, *, evaluation: bool, masks: bool
) -> None:
    """Report the faults of what `read_coco_file` has returned.

    Args:
        content: the lists of the file.
        path: that of the file.
        report: gets the faults.
        evaluation, masks: as for `check_coco_file`.
    """
    images = _check_images(content["images"], report)
    categories = _check_categories(content["categories"], report)
    if "annotations" in content:
        annotations = _only_dicts(content["annotations"], "annotations", report)
        report.num_instances = len(annotations)
        _check_ids(annotations, images, categories, report, path, evaluation)
        with progress(os.path.basename(path), len(annotations)) as bar:
            for part in split(annotations, ANNOTATIONS_AT_A_TIME):
                _check_values(part, images, report, evaluation, masks)
                bar.update(len(part))
    if evaluation and not content.get("annotations"):
        report.add(NO_ANNOTATIONS, f"`annotations` of '{path}' is empty or missing")


def read_coco_file(path: str, where: str) -> dict[str, list]:
    """Return the lists of an annotation file in COCO's format; "annotations" may be missing.

    Args:
        path: the file.
        where: the beginning of error messages.

    Raises:
        DatasetError: if the file is no JSON, or has no such lists.
    """
    try:
        with PathManager.open(path) as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{where} can't be read ({error}). It is truncated, or no JSON: write it again."
        ) from error
    keys = ("images", "categories", "annotations")
    if not isinstance(content, dict):
        raise DatasetError(
            f"{where} is not in COCO's format: it has a {type(content).__name__} at its top, "
            f"instead of a dict with the lists {', '.join(f'`{key}`' for key in keys)}."
        )
    for key in keys:
        if key == "annotations" and key not in content:
            continue  # test sets have none
        if not isinstance(content.get(key), list) or not (content[key] or key == "annotations"):
            raise DatasetError(
                f"{where} is not usable: `{key}` is {short(content.get(key))}. Compare it with "
                "COCO's format, where it is a list of dicts."
            )
    return content


def _only_dicts(records: list[Any], key: str, report: Report) -> list[dict]:
    if set(map(type, records)) <= {dict}:
        return records
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            report.add(NO_RECORD, f"entry {index} of `{key}` is {short(record)}")
    return [record for record in records if isinstance(record, dict)]


def _check_images(records: list[Any], report: Report) -> dict[int, dict]:
    """Return the images by their ids."""
    images, files = {}, set()
    for image in _only_dicts(records, "images", report):
        image_id, name = image.get("id"), image.get("file_name")
        place = f"image {short(name)} (`id` {short(image_id)})"
        if not isinstance(name, str) or not name:
            report.add(FILE_NAME, f"{place} has `file_name` {short(name)}")
        elif name in files:
            report.add(SAME_FILE, place)
        else:
            files.add(name)
        sides = image.get("width"), image.get("height")
        if not all(is_integer(side) and side > 0 for side in sides):
            report.add(
                IMAGE_SIZE, f"{place} has `width` {short(sides[0])}, `height` {short(sides[1])}"
            )
        if not is_id(image_id):
            report.add(IMAGE_ID, place)
            continue
        if image_id in images:
            report.add(SAME_IMAGE_ID, f"{place} and {short(images[image_id].get('file_name'))}")
        images[image_id] = image
    return images


def _check_categories(records: list[Any], report: Report) -> set[int]:
    """Return the ids of the categories."""
    ids, names = set(), set()
    for category in _only_dicts(records, "categories", report):
        category_id, name = category.get("id"), category.get("name")
        place = f"category {short(name)} (`id` {short(category_id)})"
        if not is_id(category_id) or category_id in ids or not isinstance(name, str):
            report.add(CATEGORY, place)
        elif name in names:
            report.add(SAME_NAME, place)
        if is_id(category_id):
            ids.add(category_id)
        if isinstance(name, str):
            names.add(name)
    return ids


def _check_ids(
    annotations: list[dict],
    images: dict[int, dict],
    categories: set[int],
    report: Report,
    path: str,
    evaluation: bool,
) -> None:
    ids = [a.get("id") for a in annotations]
    wrong = [not is_id(x) for x in ids]
    counts = Counter(x for x, is_wrong in zip(ids, wrong, strict=True) if not is_wrong)
    same = SAME_ID_IN_MINIVAL if "minival" in path else SAME_ANNOTATION_ID
    for annotation, annotation_id, is_wrong in zip(annotations, ids, wrong, strict=True):
        if is_wrong:
            report.add(ANNOTATION_ID, f"{_place(annotation, images)} has no other")
        elif annotation_id == 0 and evaluation:
            report.add(ID_ZERO, _place(annotation, images))
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if not is_id(image_id):
            what = f"has `image_id` {short(image_id)}"
            report.add(WRONG_IMAGE_ID, f"{_place(annotation, images)} {what}")
        elif image_id not in images:
            report.add(OF_NO_IMAGE, _place(annotation, images))
        if not is_id(category_id) or category_id not in categories:
            what = f"has `category_id` {short(category_id)}"
            report.add(OF_NO_CATEGORY, f"{_place(annotation, images)} {what}")
        if annotation.get("ignore", 0) != 0:
            what = f"has `ignore` {short(annotation['ignore'])}"
            report.add(IGNORED, f"{_place(annotation, images)} {what}")
    for annotation_id, count in counts.items():
        if count > 1:
            report.add(same, f"{count} have the `id` {annotation_id}", count - 1)
    lost = report.counts[OF_NO_IMAGE]
    if annotations and lost == len(annotations):
        del report.counts[OF_NO_IMAGE]
        report.add(WRONG_IMAGE_ID, f"none of the {lost} has the `id` of an image in the file", lost)


def _place(annotation: dict, images: dict[int, dict]) -> str:
    image_id = annotation.get("image_id")
    image = images.get(image_id, {}) if is_id(image_id) else {}
    return (
        f"annotation {short(annotation.get('id'))} of image {short(image.get('file_name'))} "
        f"(`image_id` {short(image_id)})"
    )


def _check_values(
    annotations: list[dict],
    images: dict[int, dict],
    report: Report,
    evaluation: bool,
    masks: bool,
) -> None:
    owners = [
        images.get(a.get("image_id"), {}) if is_id(a.get("image_id")) else {} for a in annotations
    ]
    chunk = Chunk(
        annotations,
        sizes_of(owners),
        lambda i: _place(annotations[i], images),
        report,
    )
    check_crowd_flags(chunk, needed=evaluation)
    boxes, written = check_boxes(chunk, in_coco_format=True)
    extents = check_masks(chunk, needed=evaluation and masks)
    compare_with_masks(chunk, boxes, written, extents)
    for index, annotation in enumerate(annotations):
        area, points = annotation.get("area"), annotation.get("keypoints")
        if evaluation and not (is_number(area) and area >= 0):
            chunk.add(AREA, index, f"has `area` {short(area)}" if "area" in annotation else "")
        if points and not (
            isinstance(points, list) and len(points) % 3 == 0 and all(map(is_number, points))
        ):
            chunk.add(KEYPOINTS, index, f"has `keypoints` {short(points)}")


def sizes_of(images: list[dict]) -> np.ndarray:
    """Return (N, 2) width and height of images, NaN for those that have none."""
    sides = [(image.get("width"), image.get("height")) for image in images]
    return np.array(
        [pair if all(is_number(x) and x > 0 for x in pair) else (np.nan, np.nan) for pair in sides],
        np.float64,
    ).reshape(-1, 2)
