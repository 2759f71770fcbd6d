"""Curves of a training run, from the metrics.json that Detectron2's JSONWriter writes."""

import json
import math
import os
import re

from matplotlib.figure import Figure

# Title of a plot and the metrics that it shows; a metric goes to the first pattern that matches.
PLOTS = {
    "total loss": r"total_loss",
    "RPN loss": r"loss_rpn_.+",
    "classification loss": r"loss_cls.*",
    "loss of classification by box alone": r"loss_box_cls.*",
    "box regression loss": r"loss_box_reg.*",
    "mask loss": r"loss_mask.*",
    "semantic loss": r"loss_sem.*",
    "other losses": r"loss_.+",
    "learning rate": r"lr",
    "AP": r"(.+/)?(bbox|segm)/AP",
}
COLUMNS = 3

Curve = dict[int, float]  # iteration -> value


def read_metrics(metrics_json: str | os.PathLike) -> dict[str, Curve]:
    """Read a metrics.json, which has one JSON object in each line.

    A run that was killed leaves a broken line, which is skipped. A resumed run repeats the
    iterations after its last checkpoint; what was recorded for them before is dropped.

    Returns:
        The curve of each metric by name.

    Raises:
        ValueError: if no line of the file has metrics.
    """
    metrics: dict[str, Curve] = {}
    with open(metrics_json) as file:
        for line in file:
            try:
                values = json.loads(line)
                iteration = values.pop("iteration")
            except (json.JSONDecodeError, KeyError):
                continue
            for name, value in values.items():
                curve = metrics.setdefault(name, {})
                while curve and next(reversed(curve)) >= iteration:
                    curve.popitem()
                curve[iteration] = value
    if not metrics:
        raise ValueError(f"{metrics_json} holds no metrics: no line with an iteration")
    return metrics


def group_curves(metrics: dict[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Return the curves of each of `PLOTS` that has any, by its title."""
    plots: dict[str, dict[str, Curve]] = {title: {} for title in PLOTS}
    for name, curve in sorted(metrics.items()):
        for title, pattern in PLOTS.items():
            if re.fullmatch(pattern, name):
                plots[title][name] = curve
                break
    return {title: curves for title, curves in plots.items() if curves}


def plot_training_curves(metrics_json: str | os.PathLike, output_png: str | os.PathLike) -> None:
    """Draw losses, learning rate and AP over iterations; plots without data are left out.

    Args:
        metrics_json: the file that Detectron2's `JSONWriter` writes during training.
        output_png: the picture to write.

    Raises:
        ValueError: if no line of the file has metrics.
    """
    plots = group_curves(read_metrics(metrics_json))
    rows = math.ceil(len(plots) / COLUMNS)
    figure = Figure(figsize=(4.6 * COLUMNS, 3.4 * rows), dpi=100, layout="constrained")
    last = max(iteration for curves in plots.values() for c in curves.values() for iteration in c)
    for position, (title, curves) in enumerate(plots.items(), start=1):
        axes = figure.add_subplot(rows, COLUMNS, position, title=title, xlabel="iteration")
        for name, curve in curves.items():
            # The curve of a single evaluation is one point, invisible without a marker.
            marker = "o" if len(curve) == 1 or title == "AP" else None
            axes.plot(curve.keys(), curve.values(), marker=marker, label=curve_label(name))
        axes.set_xlim(0, 1.03 * max(last, 1))
        # NaN leaves a gap in a curve, and no bound.
        values = [value for c in curves.values() for value in c.values() if math.isfinite(value)]
        axes.set_ylim(0, 1.05 * max([*values, 1e-9]))
        axes.grid(alpha=0.3)
        if len(curves) > 1 or title == "AP":
            axes.legend()
    figure.savefig(output_png)


def curve_label(name: str) -> str:
    """Return the part of a metric's name that its plot's title does not say, stages from 1."""
    stage = re.search(r"_stage(\d+)$", name)
    if stage:
        return f"stage {int(stage[1]) + 1}"
    return name.removeprefix("loss_rpn_").removeprefix("loss_").removesuffix("/AP")
