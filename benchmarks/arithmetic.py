#!/usr/bin/env python
"""How far HTC's inference is from what its arithmetic alone takes on this CPU.

    python benchmarks/arithmetic.py --image photo.jpg --threads 2

counts the multiply-adds of each part of HTC (ResNet-50-FPN, 1000 proposals, 100 detections), takes
its time (median of --repeats), and divides by the rate of the machine: the best of a 3x3
convolution of 256 channels and of a product of matrices, each as large as the model's own, measured
in the same rounds. What is not multiply-adds, such as RoI pooling, normalization, activations and
NMS, has the floor 0 here. Prints a Markdown table; writes benchmarks/results/arithmetic_cpu.json.
"""

import argparse
import copy
import json
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from model_worker import BACKBONE, BOXES, MASKS, PASTE, RPN, SEMANTIC
from models import lively_htc
from provenance import provenance
from timing import Parts, interleaved, medians, seconds_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "backbone": BACKBONE,
    "semantic_branch": SEMANTIC,
    "proposal_generator": RPN,
    "roi_heads.box": BOXES,
    "roi_heads.mask": MASKS,
}


def count_flops(model: nn.Module, inputs: list[dict]) -> dict[str, int]:
    """Floating-point operations, two for a multiply-add, of each part."""
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    flops = defaultdict(int)
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    for name, count in counts.items():
        for prefix, part in MODULES.items():
            path = f"{root}.{prefix}"
            # Modules contain one another: only the outermost of a part counts.
            if name.startswith(path) and not any(
                name.startswith(f"{other}.") for other in counts if other.startswith(path)
            ):
                flops[part] += count
    return flops


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results" / "arithmetic_cpu.json"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    detector, inputs = lively_htc(args.image)
    parts = Parts()
    detector.watch(parts)

    height, width = (-(-side // 32) * 8 for side in inputs[0]["image"].shape[1:])  # of p2
    features = torch.randn(1, 256, height, width).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    rois, weight = torch.randn(1000, 256 * 49), torch.randn(256 * 49, 1024)
    with torch.no_grad():
        runs = {
            "model": lambda: parts.measure(lambda: detector.model(copy.deepcopy(inputs))),
            "3x3 convolution": lambda: seconds_of(lambda: conv(features)),
            "product of matrices": lambda: seconds_of(lambda: rois @ weight),
        }
        interleaved(runs, 1)  # for warming up
        rounds = interleaved(runs, args.repeats)
        flops = count_flops(detector.model, copy.deepcopy(inputs))
    seconds = medians(rounds["model"])
    rates = {
        "3x3 convolution": 2 * features.numel() * 256 * 9,
        "product of matrices": 2 * rois.numel() * 1024,
    }
    rates = {name: work / statistics.median(rounds[name]) for name, work in rates.items()}
    rate = max(rates.values())
    rows = {
        part: {"GFLOP": flops[part] / 1e9, "floor": flops[part] / rate, "seconds": seconds[part]}
        for part in (BACKBONE, SEMANTIC, RPN, BOXES, MASKS, PASTE)
    }
    rows["all"] = {
        key: sum(row[key] for row in rows.values()) for key in ("GFLOP", "floor", "seconds")
    }
    print("rates, GFLOP/s:", {name: round(value / 1e9) for name, value in rates.items()})
    print("\n| part | GFLOP | arithmetic alone, s | measured, s |\n|---|---|---|---|")
    for part, row in rows.items():
        print(f"| {part} | {row['GFLOP']:.0f} | {row['floor']:.2f} | {row['seconds']:.2f} |")
    report = {**provenance(), "image": Path(args.image).name, "rates": rates, "parts": rows}
    args.results.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
