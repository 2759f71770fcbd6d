#!/usr/bin/env python
"""How far HTC's inference is from what its arithmetic alone takes on this CPU.

    python benchmarks/arithmetic.py --image a.jpg --threads 2

counts the multiply-adds of each part of HTC (ResNet-50-FPN, 1000 proposals, 100 detections), takes
its time (median of --repeats) with joined layers, without, and in bfloat16, and divides by the rate
of the machine: the best of a 3x3 convolution of 256 channels and of a product of matrices, each as
large as the model's own, in the same type and measured in the same rounds. What is not
multiply-adds, such as RoI pooling, normalization, activations and NMS, has the floor 0 here. Prints
Markdown tables; writes benchmarks/results/arithmetic_cpu_<processor>.json.
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
from record import RESULTS, ROOT, file_name, write_record
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

from hybrid_cascade.engine import load_config

COUNTED = [BACKBONE, SEMANTIC, RPN, BOXES, MASKS, PASTE]

# Ways in which the model infers: its type, and overrides of its config.
WAYS = {
    "joined layers": ("float32", []),
    "layers not joined": ("float32", ["train.inference.fuse_layers=False"]),
    "bfloat16": ("bfloat16", ["train.inference.dtype=bfloat16"]),
}


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


def measure_rates(size: tuple[int, int], dtype: torch.dtype) -> tuple[dict, dict]:
    """Return work to measure the machine's rate with: functions, and operations of each.

    Args:
        size: (height, width) of p2.
        dtype: of the numbers.
    """
    features = torch.randn(1, 256, *size, dtype=dtype).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(256, 256, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last)
    rois, weight = torch.randn(1000, 256 * 49, dtype=dtype), torch.randn(256 * 49, 1024).to(dtype)
    runs = {
        "3x3 convolution": partial(seconds_of, lambda: conv(features)),
        "product of matrices": partial(seconds_of, lambda: rois @ weight),
    }
    work = {
        "3x3 convolution": 2 * features.numel() * 256 * 9,
        "product of matrices": 2 * rois.numel() * 1024,
    }
    return runs, work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True)
    parser.add_argument("--short-edge", type=int, default=800, help="of the image, in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = read_images([args.image], args.short_edge)
    first = Detectron2Model.of_config(str(ROOT / HTC_CONFIG), [])
    first.standardize_weights(images)
    inputs = first.inputs(images)
    height, width = (-(-side // 32) * 8 for side in inputs[0]["image"].shape[1:])  # of p2
    runs, work = {}, {}
    for name, (dtype, overrides) in WAYS.items():
        config = load_config(str(ROOT / HTC_CONFIG), [*overrides, "train.device=cpu"])
        detector = Detectron2Model(first.model, config)
        detector.prepare_inference()
        parts = Parts()
        detector.watch(parts)
        runs[name] = partial(run_parts, parts, detector, inputs)
        rates, work[dtype] = measure_rates((height, width), getattr(torch, dtype))
        runs |= {f"{dtype} {rate}": function for rate, function in rates.items()}
    with torch.no_grad():
        interleaved(runs, 1)  # for warming up
        rounds = interleaved(runs, args.repeats)
        flops = count_flops(first, copy.deepcopy(inputs))
    rates = {
        dtype: {
            name: number / statistics.median(rounds[f"{dtype} {name}"])
            for name, number in numbers.items()
        }
        for dtype, numbers in work.items()
    }
    print({d: {n: f"{r / 1e9:.0f} GFLOP/s" for n, r in of.items()} for d, of in rates.items()})
    figures = {"image": Path(args.image).name, "rates": rates, "ways": {}}
    for name, (dtype, _) in WAYS.items():
        seconds = medians(rounds[name])
        rate = max(rates[dtype].values())
        rows = {
            part: {
                "GFLOP": flops[part] / 1e9,
                "floor": flops[part] / rate,
                "seconds": seconds[part],
            }
            for part in COUNTED
        }
        rows["all"] = {
            key: sum(row[key] for row in rows.values()) for key in ("GFLOP", "floor", "seconds")
        }
        figures["ways"][name] = rows
        print(f"\n{name}: {rows['all']['seconds'] / rows['all']['floor']:.2f} times the floor")
        print("\n| part | GFLOP | arithmetic alone, s | measured, s |\n|---|---|---|---|")
        for part, row in rows.items():
            print(f"| {part} | {row['GFLOP']:.0f} | {row['floor']:.2f} | {row['seconds']:.2f} |")
    write_record(args.results / f"{file_name('arithmetic', 'cpu')}.json", figures)


def run_parts(parts: Parts, detector: Detectron2Model, inputs: list[dict]) -> dict[str, float]:
    """Return the seconds of each part of a detection."""
    return parts.measure(lambda: detector.detect(copy.deepcopy(inputs)))


if __name__ == "__main__":
    main()
