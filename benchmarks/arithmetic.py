#!/usr/bin/env python
"""How far HTC's inference is from what its arithmetic alone takes on this CPU.

    python benchmarks/arithmetic.py --image a.jpg --threads 2

counts the multiply-adds of each part of HTC (ResNet-50-FPN, 1000 proposals, 100 detections), takes
its time (median of --repeats), and divides by the rate of the machine: the best of a 3x3
convolution of 256 channels and of a product of matrices, each as large as the model's own, measured
in the same rounds. What is not multiply-adds, such as RoI pooling, normalization, activations and
NMS, has the floor 0 here. Prints a Markdown table; writes benchmarks/results/arithmetic_cpu.json.
"""

import argparse
import copy
import statistics
from functools import partial
from pathlib import Path

import torch
from detectron2_model import Detectron2Model
from model_inputs import read_images
from model_process import HTC_CONFIG
from record import RESULTS, ROOT, write_record
from timing import (
    BACKBONE,
    BOXES,
    MASKS,
    PASTE,
    RPN,
    SEMANTIC,
    Parts,
    interleaved,
    medians,
    seconds_of,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

COUNTED = [BACKBONE, SEMANTIC, RPN, BOXES, MASKS, PASTE]


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations, two for a multiply-add, while it is entered.

    Not torch's FlopCounterMode, whose hooks keep the model from its faster paths.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=output)
        return output


def count_flops(detector: Detectron2Model, inputs: list[dict]) -> dict[str, int]:
    """Count the floating-point operations of each part."""
    counter = FlopCounter()
    parts = Parts(clock=lambda: counter.total)
    detector.watch(parts)
    with counter:
        return parts.measure(lambda: detector.model(inputs))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True)
    parser.add_argument("--short-edge", type=int, default=800, help="of the image, in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS / "arithmetic_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = read_images([args.image], args.short_edge)
    detector = Detectron2Model.of_config(str(ROOT / HTC_CONFIG), [])
    detector.standardize_weights(images)
    inputs = detector.inputs(images)
    parts = Parts()
    detector.watch(parts)

    height, width = (-(-side // 32) * 8 for side in inputs[0]["image"].shape[1:])  # of p2
    features = torch.randn(1, 256, height, width).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    rois, weight = torch.randn(1000, 256 * 49), torch.randn(256 * 49, 1024)
    work = {
        "3x3 convolution": 2 * features.numel() * 256 * 9,
        "product of matrices": 2 * rois.numel() * 1024,
    }
    runs = {
        "model": lambda: parts.measure(lambda: detector.model(copy.deepcopy(inputs))),
        "3x3 convolution": partial(seconds_of, lambda: conv(features)),
        "product of matrices": partial(seconds_of, lambda: rois @ weight),
    }
    with torch.no_grad():
        interleaved(runs, 1)  # for warming up
        rounds = interleaved(runs, args.repeats)
        flops = count_flops(detector, copy.deepcopy(inputs))
    seconds = medians(rounds["model"])
    rates = {name: number / statistics.median(rounds[name]) for name, number in work.items()}
    rate = max(rates.values())
    rows = {
        part: {"GFLOP": flops[part] / 1e9, "floor": flops[part] / rate, "seconds": seconds[part]}
        for part in COUNTED
    }
    rows["all"] = {
        key: sum(row[key] for row in rows.values()) for key in ("GFLOP", "floor", "seconds")
    }
    print("rates, GFLOP/s:", {name: round(value / 1e9) for name, value in rates.items()})
    print("\n| part | GFLOP | arithmetic alone, s | measured, s |\n|---|---|---|---|")
    for part, row in rows.items():
        print(f"| {part} | {row['GFLOP']:.0f} | {row['floor']:.2f} | {row['seconds']:.2f} |")
    figures = {"image": Path(args.image).name, "rates": rates, "parts": rows}
    write_record(args.results, figures)


if __name__ == "__main__":
    main()
