"""Precision over recall, of an evaluation or of results in COCO's format."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.precision_recall import PrecisionRecall, measure_precision_recall

MAX_NAMED_CLASSES = 10  # with more, the legend would be larger than the plot
_TITLES = {"bbox": "boxes", "segm": "masks"}


def plot_precision_recall(
    json_file: str | os.PathLike,
    results_json: str | os.PathLike,
    output_png: str | os.PathLike,
) -> None:
    """Evaluate results in COCO's format, and draw precision over recall.

    See `measure_precision_recall` for the first two arguments and the errors, and
    `draw_precision_recall` for the picture.
    """
    draw_precision_recall(measure_precision_recall(json_file, results_json), output_png)


def draw_precision_recall(
    evaluated: Mapping[str, PrecisionRecall], output_png: str | os.PathLike
) -> None:
    """Draw precision over recall of boxes and, if there are any, of masks.

    Thick lines are means over the classes, at an IoU of 0.5, at one of 0.75, and over IoUs from 0.5
    to 0.95; the area under each is the AP of COCO's evaluation. Thin lines are single classes at an
    IoU of 0.5. If there are no detections, the picture says so.

    Args:
        evaluated: precision over recall by task, "bbox" and "segm"; empty if nothing was found.
        output_png: the picture to write.
    """
    tasks = list(evaluated) or ["bbox"]
    figure = Figure(figsize=(6 * len(tasks), 6), dpi=100, layout="constrained")
    for position, task in enumerate(tasks, start=1):
        axes = figure.add_subplot(1, len(tasks), position, title=_TITLES[task])
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.grid(alpha=0.3)
        if evaluated:
            _draw_curves(axes, evaluated[task])
        else:
            axes.text(0.5, 0.5, "no detections", ha="center", fontsize=16)
    figure.savefig(output_png)


def _draw_curves(axes: Axes, evaluated: PrecisionRecall) -> None:
    has_objects = (evaluated.precision > -1).all(axis=(0, 1))
    precision = evaluated.precision[:, :, has_objects]
    names = [n for n, present in zip(evaluated.class_names, has_objects, strict=True) if present]
    if not names:
        axes.text(0.5, 0.5, "no annotated objects", ha="center", fontsize=16)
        return
    at_50, at_75 = (precision[np.argmin(np.abs(evaluated.ious - iou))] for iou in (0.5, 0.75))
    recalls, named = evaluated.recalls, len(names) <= MAX_NAMED_CLASSES
    for curve, label, line in (
        (at_50.mean(axis=1), "mean at IoU 0.5", "-"),
        (at_75.mean(axis=1), "mean at IoU 0.75", "--"),
        (precision.mean(axis=(0, 2)), "mean over IoU 0.5:0.95", ":"),
    ):
        label = f"{label}: AP {100 * curve.mean():.1f}"
        axes.plot(recalls, curve, line, linewidth=2.5, color="black", label=label, zorder=3)
    for name, curve in zip(names, at_50.T, strict=True):
        style = {"label": f"{name} at IoU 0.5: AP {100 * curve.mean():.1f}"}
        axes.plot(recalls, curve, linewidth=0.9, **(style if named else {"color": "0.75"}))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize=9, frameon=False)
