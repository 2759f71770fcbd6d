#!/usr/bin/env python
"""What each idea that makes HTC's inference fast is worth, and what others would be.

    python benchmarks/variants.py --image photo.jpg --threads 2

times HTC (ResNet-50-FPN, random lively weights, 1000 proposals, 100 detections) as it is, with one
idea at a time undone, and with further ones (mixed precision, torch.compile), in turns. Prints a
Markdown table of the ratios to the time as it is, and how many of the detections stay the same;
writes benchmarks/results/variants_cpu.json.
"""

import argparse
import contextlib
import copy
import json
import statistics
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from compare_with_mmdet import match
from models import lively_htc
from provenance import provenance
from timing import interleaved, seconds_of
from torch import nn

from hybrid_cascade.export.torchscript import pooled_by_torchvision
from hybrid_cascade.modeling.cascade import box_selection, roi_heads

ROOT = Path(__file__).resolve().parents[1]


def contiguous(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


def compiled(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    model.backbone.compile()
    return model


def make_variants(model: nn.Module) -> dict[str, tuple]:
    """A model and what creates the context in which it runs, by name."""
    here = contextlib.nullcontext
    every = partial(mock.patch.object, box_selection, "MIN_CANDIDATES", 10**9)
    all_classes = partial(mock.patch.object, roi_heads, "class_mask_logits", lambda p, x, _: p(x))
    return {
        "as it is": (model, here),
        "torchvision's RoIAlign": (model, partial(pooled_by_torchvision, model)),
        "convolutions not channels-last": (contiguous(model), here),
        "NMS of all candidates": (model, every),
        "masks of all classes": (model, all_classes),
        "backbone by torch.compile": (compiled(model), here),
        "bfloat16 by autocast": (model, partial(torch.autocast, "cpu", torch.bfloat16)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results" / "variants_cpu.json"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    detector, inputs = lively_htc(args.image)
    found = {}

    def run(name: str, model: nn.Module, context) -> float:
        def detect():
            with torch.no_grad(), context():
                (found[name],) = model(inputs)

        return seconds_of(detect)

    runs = {n: partial(run, n, *variant) for n, variant in make_variants(detector.model).items()}
    interleaved(runs, 2)  # for warming up, and for compiling
    seconds = interleaved(runs, args.repeats)
    reference = detector.fields(found["as it is"]["instances"])
    rows = {}
    for name in runs:
        pairs = zip(seconds[name], seconds["as it is"], strict=True)
        rows[name] = {
            "seconds": statistics.median(seconds[name]),
            "ratio": statistics.median(a / b for a, b in pairs),
            "same_detections": len(match(reference, found[name]["instances"])[0]),
        }
    print("| variant | s / image | ratio | same detections |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['seconds']:.2f} | {row['ratio']:.2f} | {row['same_detections']} |")
    report = {**provenance(), "image": Path(args.image).name, "variants": rows}
    args.results.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
