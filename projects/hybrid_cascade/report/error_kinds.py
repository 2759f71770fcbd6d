"""The kind of error that each detection of an image is, by the rules of TIDE (arXiv 2008.08115).

Letters: D detections and G objects of the image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .evaluation import IOU, Evaluation

BACKGROUND_IOU = 0.1  # with less, a detection has nothing to do with an object
RIGHT, NOT_COUNTED = "right", "crowd"


@dataclass
class ImageErrors:
    """The detections and the objects of an image.

    Attributes:
        detections: the indices of its D detections in the results, best score first.
        kinds: of each: "right", "Cls", "Loc", "Both", "Dupe", "Bkg", or "crowd" where it is not
            counted.
        ious: of each with its object, or with the nearest one, of any class; (D,) in [0, 1].
        objects: its G objects, COCO's annotations, crowds too.
        found: the score of the detection that finds each, (G,), 0 where none does.
        missed: whether each is a "Miss", (G,) bool: none finds it, and none is nearly right.
    """

    detections: list[int]
    kinds: list[str]
    ious: np.ndarray
    objects: list[dict]
    found: np.ndarray
    missed: np.ndarray


def find_errors(evaluation: Evaluation, task: str, image_ids: list[int]) -> list[ImageErrors]:
    """Sort out the errors in some images.

    Args:
        evaluation: of the images.
        task: "bbox" or "segm", what it measures.
        image_ids: the new ids of the images, see `Results`.
    """
    results = evaluation.results
    detections: dict[int, list[int]] = {i: [] for i in image_ids}
    objects: dict[int, list[dict]] = {i: [] for i in image_ids}
    for index, detection in enumerate(results.detections):
        if detection["image_id"] in detections:
            detections[detection["image_id"]].append(index)
    for annotation in results.annotations:
        if annotation["image_id"] in objects:
            objects[annotation["image_id"]].append(annotation)
    found = []
    for i in image_ids:
        indices = sorted(detections[i], key=lambda d: -results.detections[d]["score"])
        found.append(_of_image(evaluation, task, indices, objects[i], results.images[i - 1]))
    return found


def _of_image(
    evaluation: Evaluation, task: str, indices: list[int], objects: list[dict], image: dict
) -> ImageErrors:
    detections = [evaluation.results.detections[d] for d in indices]
    is_crowd = np.array([bool(a.get("iscrowd")) for a in objects], bool)
    # Like hotcoco's counts: a crowd is an object for detections of its own class only.
    with_crowds = _ious(detections, objects, task, image)
    ious = np.where(is_crowd, 0, with_crowds)
    scores = {
        evaluation.finds[d]: x["score"]
        for d, x in zip(indices, detections, strict=True)
        if d in evaluation.finds
    }
    found = np.array([scores.get(a["id"], 0) for a in objects], float)
    classes = np.array([a["category_id"] for a in objects], int)
    column_of = {a["id"]: g for g, a in enumerate(objects)}
    kinds, best_ious = [], np.zeros(len(indices))
    # Found, or touched by a detection that is nearly right.
    is_touched = np.array([a["id"] in scores for a in objects], bool)
    for row, index in enumerate(indices):
        of_all = ious[row]
        best_ious[row] = of_all.max(initial=0)
        status = evaluation.is_right[index]
        if status != 0:
            kinds.append(RIGHT if status == 1 else NOT_COUNTED)
            if status == 1:
                best_ious[row] = of_all[column_of[evaluation.finds[index]]]
            continue
        is_same = classes == detections[row]["category_id"]
        same = np.where(is_same, with_crowds[row], 0)
        others = np.where(is_same, 0, of_all)
        if BACKGROUND_IOU <= same.max(initial=0) < IOU:
            kinds.append("Loc")
            is_touched[same.argmax()] = True
        elif others.max(initial=0) >= IOU:
            kinds.append("Cls")
            is_touched[others.argmax()] = True
        elif same.max(initial=0) >= IOU:
            kinds.append("Dupe")
        else:
            kinds.append("Bkg" if best_ious[row] < BACKGROUND_IOU else "Both")
    missed = ~is_touched & ~is_crowd
    return ImageErrors(indices, kinds, best_ious, objects, found, missed)


def _ious(detections: list[dict], objects: list[dict], task: str, image: dict) -> np.ndarray:
    """Return the (D, G) IoUs of boxes or masks; those with crowds are COCO's."""
    if not (detections and objects):
        return np.zeros((len(detections), len(objects)))
    key = "bbox" if task == "bbox" else "segmentation"
    size = image.get("height", 0), image.get("width", 0)
    shapes = [[_shape(x.get(key), key, size) for x in xs] for xs in (detections, objects)]
    crowds = [int(bool(a.get("iscrowd"))) for a in objects]
    return np.asarray(coco_mask.iou(*shapes, crowds)).reshape(len(detections), len(objects))


def _shape(value: Any, key: str, size: tuple[int, int]) -> Any:
    return value if key == "bbox" else as_rle(value, size)


def as_rle(segmentation: Any, size: tuple[int, int]) -> dict:
    """Return a mask of COCO's, of any form, in compressed run lengths.

    Args:
        segmentation: polygons, run lengths, or nothing (no mask).
        size: height and width of the image.
    """
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, *segmentation["size"])
        return segmentation
    polygons = [p for p in segmentation or [] if len(p) >= 6]
    if not polygons:
        return coco_mask.encode(np.zeros(size, np.uint8, order="F"))
    return coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
