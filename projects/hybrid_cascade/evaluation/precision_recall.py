"""Precision over recall: what an evaluator keeps of COCO's evaluation, or an evaluation of results.

Letters: T IoU thresholds, R recalls, K classes.
"""

import contextlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager

try:
    from hotcoco import COCO, COCOeval
except ImportError:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

TASKS = ("bbox", "segm")


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision at each recall, for objects of all sizes and as many detections as count.

    Attributes:
        precision: (T, R, K) in [0, 1], -1 for a class without objects.
        ious: (T,), ascending.
        recalls: (R,), from 0 to 1.
        class_names: K.
    """

    precision: np.ndarray
    ious: np.ndarray
    recalls: np.ndarray
    class_names: Sequence[str]

    @classmethod
    def of(cls, evaluation: Any, class_names: Sequence[str]) -> "PrecisionRecall":
        """Take it from a `COCOeval`, of pycocotools or hotcoco, that has accumulated."""
        params = evaluation.params
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        return cls(precision, np.array(params.iouThrs), np.array(params.recThrs), class_names)

    def save(self, folder: str | os.PathLike, task: str) -> None:
        """Write it into the folder of an evaluator, whose results are there already."""
        with PathManager.open(_path(folder, task), "wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, folder: str | os.PathLike, task: str) -> "PrecisionRecall":
        """Load what `save` wrote."""
        with np.load(_path(folder, task)) as arrays:
            return cls(**arrays)


def load_precision_recall(folder: str | os.PathLike) -> dict[str, PrecisionRecall]:
    """Load what a `FastCOCOEvaluator` has saved beside its coco_instances_results.json, by task.

    Returns:
        {} if the results are of another evaluator, which saves none, or if nothing was found.
    """
    evaluated = os.path.getmtime(os.path.join(folder, "coco_instances_results.json"))
    paths = {task: _path(folder, task) for task in TASKS}
    # An older file is of an evaluation before.
    return {
        task: PrecisionRecall.load(folder, task)
        for task, path in paths.items()
        if os.path.isfile(path) and os.path.getmtime(path) >= evaluated
    }


def measure_precision_recall(
    json_file: str | os.PathLike, results_json: str | os.PathLike
) -> dict[str, PrecisionRecall]:
    """Evaluate any results in COCO's format, by hotcoco, or by pycocotools where it is missing.

    Args:
        json_file: the ground truth in COCO's format.
        results_json: the coco_instances_results.json of a `COCOEvaluator`.

    Returns:
        That of "bbox" and, if the results have masks, of "segm"; {} if they have no object.

    Raises:
        ValueError: if the results are of images that the ground truth does not have.
    """
    with open(results_json) as file:
        results = json.load(file)
    if not results:
        return {}
    tasks = TASKS if "segmentation" in results[0] else TASKS[:1]  # pycocotools adds masks of boxes
    found = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        ground_truth = COCO(str(json_file))
        unknown = {r["image_id"] for r in results} - set(ground_truth.getImgIds())
        if unknown:
            raise ValueError(f"{results_json} has image_id {min(unknown)}, {json_file} does not")
        detections = ground_truth.loadRes(results)
        for task in tasks:
            evaluation = COCOeval(ground_truth, detections, task)
            evaluation.evaluate()
            evaluation.accumulate()
            names = [str(c["name"]) for c in ground_truth.loadCats(evaluation.params.catIds)]
            found[task] = PrecisionRecall.of(evaluation, names)
    return found


def _path(folder: str | os.PathLike, task: str) -> str:
    return os.path.join(folder, f"coco_precision_{task}.npz")
