"""Precision over recall, from the results that Detectron2's COCOEvaluator writes."""

import json
import os

import numpy as np
from hotcoco import COCO, COCOeval
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MAX_NAMED_CLASSES = 10  # with more, the legend would be larger than the plot


def plot_precision_recall(
    json_file: str | os.PathLike,
    results_json: str | os.PathLike,
    output_png: str | os.PathLike,
) -> None:
    """Draw precision over recall of boxes and, if there are any, of masks.

    Thick lines are means over the classes, at an IoU of 0.5, at one of 0.75, and over IoUs from 0.5
    to 0.95; the area under each is the AP of COCO's evaluation. Thin lines are single classes at an
    IoU of 0.5. If there are no detections, the picture says so.

    Args:
        json_file: the ground truth in COCO's format.
        results_json: the coco_instances_results.json of `COCOEvaluator`.
        output_png: the picture to write.

    Raises:
        ValueError: if the results are of images that the ground truth does not have.
    """
    with open(results_json) as file:
        results = json.load(file)
    tasks = {"bbox": "boxes"}
    if results and "segmentation" in results[0]:
        tasks["segm"] = "masks"
    figure = Figure(figsize=(6 * len(tasks), 6), dpi=100, layout="constrained")
    ground_truth = COCO(json_file)
    unknown = {r["image_id"] for r in results} - set(ground_truth.getImgIds())
    if unknown:
        raise ValueError(f"{results_json} has image_id {min(unknown)}, {json_file} does not")
    detections = ground_truth.loadRes(results) if results else None
    for position, (task, title) in enumerate(tasks.items(), start=1):
        axes = figure.add_subplot(1, len(tasks), position, title=title)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.grid(alpha=0.3)
        if detections is None:
            axes.text(0.5, 0.5, "no detections", ha="center", fontsize=16)
            continue
        evaluation = COCOeval(ground_truth, detections, task)
        evaluation.evaluate()
        evaluation.accumulate()
        names = [c["name"] for c in ground_truth.loadCats(evaluation.params.catIds)]
        _draw_curves(axes, evaluation, names)
    figure.savefig(output_png)


def _draw_curves(axes: Axes, evaluation: COCOeval, names: list[str]) -> None:
    # IoUs x recalls x classes, for objects of all areas and the largest number of detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    recall, ious = evaluation.params.recThrs, np.array(evaluation.params.iouThrs)
    has_objects = (precision > -1).all(axis=(0, 1))  # -1 marks the other classes
    precision = precision[:, :, has_objects]
    names = [name for name, present in zip(names, has_objects, strict=True) if present]
    if not names:
        axes.text(0.5, 0.5, "no annotated objects", ha="center", fontsize=16)
        return
    at_50, at_75 = (precision[np.argmin(np.abs(ious - iou))] for iou in (0.5, 0.75))
    named = len(names) <= MAX_NAMED_CLASSES
    for curve, label, line in (
        (at_50.mean(axis=1), "mean at IoU 0.5", "-"),
        (at_75.mean(axis=1), "mean at IoU 0.75", "--"),
        (precision.mean(axis=(0, 2)), "mean over IoU 0.5:0.95", ":"),
    ):
        label = f"{label}: AP {100 * curve.mean():.1f}"
        axes.plot(recall, curve, line, linewidth=2.5, color="black", label=label, zorder=3)
    for name, curve in zip(names, at_50.T, strict=True):
        style = {"label": f"{name} at IoU 0.5: AP {100 * curve.mean():.1f}"}
        axes.plot(recall, curve, linewidth=0.9, **(style if named else {"color": "0.75"}))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=9, frameon=False)
