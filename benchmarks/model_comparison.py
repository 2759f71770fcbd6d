"""Time, memory and detections of models that do the same work in turns."""

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch
from model_process import ModelProcess
from timing import interleaved, medians

RATIOS = [
    *(("htc", "mmdet_htc"), ("htc", "detectron2_cascade"), ("cascade", "detectron2_cascade")),
    *(("htc", "htc_unfused"), ("htc_bfloat16", "htc"), ("htc_bfloat16", "mmdet_htc")),
]
SAME_DETECTIONS = [
    *(("htc", "mmdet_htc"), ("cascade", "detectron2_cascade")),
    *(("htc", "htc_unfused"), ("htc_bfloat16", "htc")),
]
PARTS_ROUNDS = 3


def compare(
    names: list[str],
    weights: dict[str, Path],
    images: Path,
    batch: int,
    training: bool,
    args: argparse.Namespace,
) -> dict:
    """Measure models on the images of a file, at inference or in steps of training.

    Args:
        names: of the models, see `ModelProcess`.
        weights: a checkpoint of each.
        images: a file of model_inputs.py's images.
        batch: images at a time.
        training: whether to train; the images then need ground truth.
        args: the command line of models.py.

    Returns:
        "models": for each, seconds of a batch and of its parts, RoIs of the mask branches, peak
        memory, number of detections in each image, seconds in each round; "ratios"; at inference
        "same_instances", the number that two models have in common in each image.
    """
    processes = {name: ModelProcess(name, weights[name], args) for name in names}
    loaded = [
        process.ask("load", images=str(images), batch=batch, training=training)
        for process in processes.values()
    ]
    number = loaded[0]["number"]
    if not training:
        for process in processes.values():
            process.ask("prepare_inference")
        for quantity in ("proposals", "detections", "stages"):
            for process in processes.values():
                if value := getattr(args, quantity):
                    process.ask("set", quantity=quantity, value=value)
    found = {name: [] for name in names}
    for name, process in processes.items():
        for index in range(number):  # for warming up, too
            process.ask("seconds", index=index)
            if not training:
                path = images.with_name("detections.pth")
                process.ask("detections", path=str(path))
                found[name] += torch.load(path, weights_only=True)
                path.unlink()

    def ask(process: ModelProcess, do: str) -> list[dict]:
        return [process.ask(do, index=index) for index in range(number)]

    def rounds_of(do: str, rounds: int) -> dict[str, list[list[dict]]]:
        runs = {name: partial(ask, process, do) for name, process in processes.items()}
        return interleaved(runs, rounds)

    times, parts = rounds_of("seconds", args.repeats), rounds_of("parts", PARTS_ROUNDS)
    models = {}
    for name, process in processes.items():
        rounds = [[batch["seconds"] for batch in batches] for batches in times[name]]
        models[name] = {
            "detections": [len(image["scores"]) for image in found[name]],
            "peak_bytes": process.ask("peak")["bytes"],
            "seconds": sum(map(statistics.median, zip(*rounds, strict=True))) / number,
            "parts": mean_of_medians([[b["seconds"] for b in batches] for batches in parts[name]]),
            "mask_rois": sum(batch["number"] for batch in ask(process, "mask_rois")) / number,
            "rounds": rounds,
        }
        process.close()
    report = {"models": models, "ratios": ratios(models)}
    if not training:
        report["same_instances"] = {
            f"{a} = {b}": [count_same(x, y) for x, y in zip(found[a], found[b], strict=True)]
            for a, b in SAME_DETECTIONS
            if a in found and b in found
        }
    return report


def mean_of_medians(rounds: list[list[dict[str, float]]]) -> dict[str, float]:
    """Return the median over the rounds, and then the mean over the batches, of each key."""
    batches = [medians(batch) for batch in zip(*rounds, strict=True)]
    keys = dict.fromkeys(key for batch in batches for key in batch)
    return {key: sum(batch.get(key, 0.0) for batch in batches) / len(batches) for key in keys}


def ratios(models: dict) -> dict[str, dict[str, float]]:
    """Return the ratios of time, the median over the rounds, and of memory of `RATIOS`."""
    report = {}
    for a, b in RATIOS:
        if a in models and b in models:
            pairs = zip(models[a]["rounds"], models[b]["rounds"], strict=True)
            report[f"{a} / {b}"] = {
                "seconds": statistics.median(sum(x) / sum(y) for x, y in pairs),
                "peak_bytes": models[a]["peak_bytes"] / models[b]["peak_bytes"],
            }
    return report


def count_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> int:
    """Count the instances of an image that two models have in common, masks aside.

    Their class is the same, their boxes differ by less than 0.01 px, their scores by less than
    0.0001.

    Args:
        ours, theirs: "boxes" (D, 4), "scores", "labels" (D,), "masks" (D, H, W); each model may
            have its own D.

    Raises:
        ValueError: if the masks of the two differ in number, size or type.
    """
    masks = [(x["masks"].shape, x["masks"].dtype) for x in (ours, theirs)]
    if masks[0] != masks[1]:
        raise ValueError(f"Masks of {masks[0]} and of {masks[1]} are not the same work")
    same = (
        ((theirs["boxes"][:, None] - ours["boxes"]).abs().amax(dim=2) < 1e-2)
        & (theirs["labels"][:, None] == ours["labels"])
        & ((theirs["scores"][:, None] - ours["scores"]).abs() < 1e-4)
    )
    return int(same.any(dim=1).sum())
