"""Everything that the page shows, as plain values."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..visualization.sem_seg import make_legend, semantic_names
from ..visualization.training_curves import curve_label, group_curves, read_metrics
from .costs import MAX_CANDIDATES, image_costs
from .error_kinds import ImageErrors, find_errors
from .evaluation import IOU, Evaluation
from .gallery import MAX_DETECTIONS, MIN_SCORE, Frame, describe_image
from .pictures import label_map_uri
from .results import Results
from .stages import ModelOfReport, StageResults, run_stages

MAX_POINTS = 300  # of a training curve
DEFAULT_THRESHOLD = 0.5  # where no detection is right


@dataclass
class _Frames:
    """One position of the sliders: a frame of each image that is shown, see `Frame`."""

    title: str
    results: Results
    errors: list[ImageErrors]


def build_report(
    results: Results,
    *,
    title: str = "",
    image_files: Mapping[Any, str] | None = None,
    num_images: int = 24,
    model: ModelOfReport | None = None,
    num_stage_images: int = 100,
    config: str = "",
    metrics_json: str | os.PathLike | None = None,
    sources: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Measure the results, and gather all that the page shows.

    Args:
        results: detections and ground truth.
        title: the name of the dataset, for example.
        image_files: the file of each image by its id in the annotation file; images that have none,
            or none that can be read, are shown as empty frames.
        num_images: how many images are shown, those with the costliest errors.
        model: what made the results, for its stages and its semantic prediction; None: without.
        num_stage_images: over how many images, evenly spread, AP by stage is measured.
        config: the text of the config that made the results.
        metrics_json: what Detectron2's `JSONWriter` wrote in the training.
        sources: further lines for the head of the page, such as the names of the files.

    Returns:
        What `write_report` takes. AP and shares are in [0, 1].

    Raises:
        ImportError: if hotcoco is not installed.
    """
    if find_spec("hotcoco") is None:
        raise ImportError("a report needs hotcoco: pip install hotcoco")
    evaluations = {task: Evaluation(results, task) for task in results.tasks}
    task, main = list(evaluations.items())[-1]  # masks if there are any
    costs = image_costs(main)
    shown = [int(i) + 1 for i in np.argsort(-costs, kind="stable")[:num_images]]
    sampled, stages = [], None
    if model is not None:
        known = [i for i, key in enumerate(results.image_ids, start=1) if key in model.dataset]
        sampled = [known[k - 1] for k in _evenly(len(known), num_stage_images)]
        chosen = (sampled, [i for i in shown if i in set(known)])
        ids = [[results.image_ids[i - 1] for i in some] for some in chosen]
        stages = run_stages(model, *ids)
    has_stages = stages is not None and len(stages.titles) > 1
    frames = _frames(results, main, task, shown, stages if has_stages else None)
    thresholds = {name: evaluation.best_threshold() for name, evaluation in evaluations.items()}
    thresholds = {k: DEFAULT_THRESHOLD if v is None else v for k, v in thresholds.items()}
    sem_segs, legend = _semantic(model, stages)
    files = image_files or {}
    gallery = []
    for position, i in enumerate(shown):
        image_id = results.image_ids[i - 1]
        described = describe_image(
            results.images[i - 1],
            files.get(image_id),
            [Frame(f.title, f.results, f.errors[position]) for f in frames],
            [category["id"] for category in results.categories],
        )
        gallery.append(
            {**described, "cost": float(costs[i - 1]), "sem_seg": sem_segs.get(image_id)}
        )
    objects = sum(not a.get("iscrowd") for a in results.annotations)
    return {
        "title": title,
        "sources": dict(sources or {}),
        "counts": {
            "images": len(results.images),
            "objects": objects,
            "crowds": len(results.annotations) - objects,
            "detections": len(results.detections),
        },
        "names": results.names,
        "sizes": main.sizes(),
        "tasks": {
            name: {
                "metrics": evaluation.metrics(),
                "classes": evaluation.classes(),
                "curves": evaluation.curves(),
                "confusion": evaluation.confusion(thresholds[name]),
                "errors": evaluation.errors(),
                "threshold": thresholds[name],
            }
            for name, evaluation in evaluations.items()
        },
        "stages": _by_stage(results, stages, sampled) if has_stages else None,
        "gallery": {
            "task": task,
            "iou": IOU,
            "images": gallery,
            "with_errors": int((costs > 0).sum()),
            "candidates": MAX_CANDIDATES,
            "max_detections": MAX_DETECTIONS,
            "min_score": MIN_SCORE,
            "legend": [[name, _hex(color)] for name, color in legend.values()],
        },
        "training": _training(metrics_json),
        "config": config,
    }


def _evenly(number: int, wanted: int) -> list[int]:
    """Return some of the numbers 1 to `number`, evenly spread."""
    return [int(i) + 1 for i in np.linspace(0, number - 1, min(number, wanted))]


def _frames(
    results: Results, main: Evaluation, task: str, shown: list[int], stages: StageResults | None
) -> list[_Frames]:
    """Return what the slider of each image goes through: the stages, then the results."""
    last = _Frames("results", results, find_errors(main, task, shown))
    if stages is None:
        return [last]
    frames = []
    for title, detections in zip(stages.titles, stages.detections, strict=True):
        of_stage = results.of_images(shown, _of(detections, results, shown))
        # In a part of the results, ids are made anew.
        order = sorted(shown)
        evaluation = Evaluation(of_stage, task)
        errors = find_errors(evaluation, task, [order.index(i) + 1 for i in shown])
        frames.append(_Frames(title, of_stage, errors))
    return frames if _equal(frames[-1], last) else [*frames, last]


def _equal(one: _Frames, other: _Frames) -> bool:
    """Tell whether two frames have the same detections."""
    for a, b in zip(one.errors, other.errors, strict=True):
        scores = [
            [f.results.detections[d]["score"] for d in e.detections]
            for f, e in ((one, a), (other, b))
        ]
        if len(scores[0]) != len(scores[1]) or not np.allclose(*scores, atol=1e-3):
            return False
    return True


def _of(detections: list[dict], results: Results, ids: Sequence[int]) -> list[dict]:
    wanted = {results.image_ids[i - 1] for i in ids}
    return [d for d in detections if d["image_id"] in wanted]


def _by_stage(results: Results, stages: StageResults, sampled: list[int]) -> dict[str, Any] | None:
    if not sampled:
        return None
    rows = []
    for title, detections in zip(stages.titles, stages.detections, strict=True):
        part = results.of_images(sampled, _of(detections, results, sampled))
        # A stage that finds nothing has an AP too.
        tasks = [t for t in results.tasks if t in part.tasks or not part.detections]
        rows.append({"name": title, **{t: Evaluation(part, t).metrics() for t in tasks}})
    return {"rows": rows, "images": len(sampled)}


def _semantic(
    model: ModelOfReport | None, stages: StageResults | None
) -> tuple[dict[Any, str], dict]:
    """Return the semantic predictions as URIs, and the legend of their labels."""
    if stages is None or not stages.sem_segs:
        return {}, {}
    metadata = model.metadata
    maps = list(stages.sem_segs.values())
    flat = np.concatenate([sem_seg.ravel() for sem_seg in maps])
    legend = make_legend([flat], semantic_names(model.model, metadata), metadata)
    colors = {
        label: tuple(round(255 * c) for c in color)
        for label, (name, color) in legend.items()
        if name != "ignored"
    }
    return {i: label_map_uri(sem_seg, colors) for i, sem_seg in stages.sem_segs.items()}, legend


def _training(metrics_json: str | os.PathLike | None) -> list[dict[str, Any]]:
    if metrics_json is None or not os.path.isfile(metrics_json):
        return []
    try:
        metrics = read_metrics(metrics_json)
    except ValueError:  # an evaluation alone writes none
        return []
    plots = []
    for title, curves in group_curves(metrics).items():
        lines = []
        for name, curve in curves.items():
            points = [(i, v) for i, v in curve.items() if np.isfinite(v)]
            kept = [points[k - 1] for k in _evenly(len(points), MAX_POINTS)] if points else []
            lines.append(
                {"name": curve_label(name), "points": [[i, float(f"{v:.5g}")] for i, v in kept]}
            )
        plots.append({"title": title, "lines": lines})
    return plots


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in color)
