"""The same random weights for the models that models.py compares."""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from model_process import HTC_CONFIG, TITLES, VARIANTS, ModelProcess
from record import ROOT


def make_weights(
    names: list[str], images: Path, folder: Path, args: argparse.Namespace
) -> dict[str, Path]:
    """Write checkpoints for all of `TITLES`, with the same weights, and for other configs.

    The weights are drawn for MMDetection's HTC if it is there, else for ours.

    Args:
        names: of the models that are compared.
        images: a file of model_inputs.py's images; the weights are drawn for the first one.
        folder: for the checkpoints.
        args: the command line of models.py.
    """
    source = "mmdet_htc" if args.mmdet_python else "htc"
    weights = {}
    for name in {source, *names} - (TITLES.keys() - {source}):
        weights[name] = folder / f"weights_{len(weights)}.pth"
        process = ModelProcess(name, None, args)
        process.ask("load", images=str(images), batch=1, training=False)
        process.ask("make_weights", path=str(weights[name]))
        process.close()
    if source == "mmdet_htc":
        weights["htc"] = folder / "htc.pth"
        convert_from_mmdet(weights[source], weights["htc"])
    weights |= dict.fromkeys(VARIANTS, weights["htc"])
    htc = torch.load(weights["htc"], weights_only=True)["model"]
    not_of_cascade = (
        "semantic_branch.",
        "roi_heads.mask_information_flow.",
        "roi_heads.mask_head.1.",
        "roi_heads.mask_head.2.",
    )
    cascade = {key: x for key, x in htc.items() if not key.startswith(not_of_cascade)}
    of_detectron2 = {key.replace("mask_head.0.", "mask_head."): x for key, x in cascade.items()}
    for name, tensors in (("cascade", cascade), ("detectron2_cascade", of_detectron2)):
        weights[name] = folder / f"{name}.pth"
        torch.save({"model": tensors}, weights[name])
    return weights


def convert_from_mmdet(checkpoint: Path, converted: Path) -> None:
    """Write MMDetection's checkpoint of HTC as one of ours."""
    options = ["--from", "mmdet", str(checkpoint), str(converted)]
    options += ["--config-file", str(ROOT / HTC_CONFIG)]
    tool = [sys.executable, str(ROOT / "tools/convert_checkpoint.py")]
    subprocess.run([*tool, *options], check=True, stdout=sys.stderr)
