"""RoI warp beside other ways to compute it, or something alike.

    python benchmarks/roi_warp.py --device cpu --threads 2
    python benchmarks/roi_warp.py --device cuda

Prints a table, and writes benchmarks/results/roi_warp_<device>.json and .png (`--name` names them
otherwise). In every round each way runs once, in turn, so that a busy machine slows all of them;
figures are medians.

- ours: `roi_warp`.
- grid_sample: `grid_sample` + `max_pool2d`, all boxes of an image in one call.
- roi_align 1, roi_align 2: `torchvision.ops.roi_align` with sampling_ratio 1 at all samples +
  `max_pool2d`, and with sampling_ratio 2 at the output's size. They have no gradient by the boxes.
- floor: the bytes that must be read and written / the copy bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torchvision
from matplotlib.figure import Figure
from record import RESULTS, machine_name, write_record
from timing import interleaved, seconds_of
from torch import Tensor
from torch.nn import functional as F

from hybrid_cascade.layers import roi_warp

WAYS = ["ours", "grid_sample", "roi_align 1", "roi_align 2"]


@dataclass
class Level:
    features: Tensor  # (N, C, h, w)
    boxes: Tensor  # (R, 5), image by image: its index, then XYXY in pixels
    scale: float  # from pixels to the map


@dataclass
class Case:
    name: str
    levels: list[Level]
    samples: int  # of a box along each axis
    max_pool: int

    def bytes_needed(self) -> int:
        """Count the bytes if every feature is read once and every cell written once."""
        cells = (self.samples // self.max_pool) ** 2
        elements = sum(
            level.features.numel() + len(level.boxes) * level.features.shape[1] * cells
            for level in self.levels
        )
        return elements * self.levels[0].features.element_size()


def make_case(name, channels, maps, counts, samples, max_pool, images=1, device="cpu") -> Case:
    """Draw features and boxes.

    `maps` has (height, width, stride) of each level, `counts` the boxes of an image on each level.
    """
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    levels = []
    for (height, width, stride), count in zip(maps, counts, strict=True):
        limits = torch.tensor([width, height]) * stride
        # On a pyramid boxes have the size that their level is for, else any from 16 pixels up.
        size = (
            stride * (28 + 28 * rand(images * count, 2))
            if len(maps) > 1
            else 16 + rand(images * count, 2) ** 2 * (limits - 16)
        )
        low = rand(images * count, 2) * (limits - size).clamp(min=0)
        index = torch.arange(images).repeat_interleave(count)[:, None]
        boxes = torch.cat([index, low, torch.minimum(low + size, limits)], dim=1)
        features = torch.randn(images, channels, height, width, generator=generator)
        levels.append(Level(features.to(device), boxes.to(device), 1 / stride))
    return Case(name, levels, samples, max_pool)


def mnc(device, boxes=300, channels=512, samples=28, images=1, name="MNC") -> Case:
    return make_case(name, channels, [(38, 63, 16)], [boxes], samples, 2, images, device)


def fpn(device, images=1, name="FPN") -> Case:
    maps = [(200, 334, 4), (100, 167, 8), (50, 84, 16), (25, 42, 32)]
    return make_case(name, 256, maps, [256, 128, 96, 32], 14, 1, images, device)


def one_box_of_fpn(device, name) -> Case:
    finest = fpn(device).levels[0]
    return Case(name, [replace(finest, boxes=finest.boxes[:1])], samples=14, max_pool=1)


def by_grid_sample(level: Level, samples: int, max_pool: int) -> Tensor:
    height, width = level.features.shape[-2:]
    steps = torch.arange(samples, device=level.boxes.device) / samples
    outputs = []
    for features, boxes in zip(
        level.features, level.boxes.split(len(level.boxes) // len(level.features)), strict=True
    ):
        x1, y1, x2, y2 = (boxes[:, 1:] * level.scale).unbind(1)
        x = (2 * (x1[:, None] + steps * (x2 - x1)[:, None]) + 1) / width - 1
        y = (2 * (y1[:, None] + steps * (y2 - y1)[:, None]) + 1) / height - 1
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
        warped = F.grid_sample(features[None], grid.reshape(1, -1, samples, 2), align_corners=False)
        warped = warped.reshape(len(features), len(boxes), samples, samples)
        # Pooled before the boxes become the first dimension, when there is less to move.
        outputs.append(F.max_pool2d(warped, max_pool).transpose(0, 1))
    return torch.cat(outputs).contiguous()


def run(way: str, case: Case) -> list[Tensor]:
    outputs = []
    for level in case.levels:
        features, boxes, scale = level.features, level.boxes, level.scale
        if way == "ours":
            output = roi_warp(features, boxes, case.samples, scale, case.max_pool)
        elif way == "grid_sample":
            output = by_grid_sample(level, case.samples, case.max_pool)
        elif way == "roi_align 1":
            output = torchvision.ops.roi_align(features, boxes, case.samples, scale, 1)
            output = F.max_pool2d(output, case.max_pool)
        else:
            size = case.samples // case.max_pool
            output = torchvision.ops.roi_align(features, boxes, size, scale, 2)
        outputs.append(output)
    return outputs


def run_with_backward(way: str, case: Case) -> None:
    with_boxes = way in ("ours", "grid_sample")
    inputs = [level.features for level in case.levels]
    inputs += [level.boxes for level in case.levels if with_boxes]
    for tensor in inputs:
        tensor.requires_grad_()
    outputs = run(way, case)
    torch.autograd.grad(outputs, inputs, [torch.ones_like(output) for output in outputs])
    for tensor in inputs:
        tensor.requires_grad_(False)


def copy_bandwidth(device: str) -> float:
    """Return the bytes read plus written in a second, by a copy that no cache holds."""
    source = torch.zeros(2**28 if device == "cuda" else 2**25, device=device)
    target = torch.zeros_like(source)
    times = [seconds_on(device, lambda: target.copy_(source)) for _ in range(9)]
    return 2 * source.numel() * source.element_size() / statistics.median(times)


def seconds_on(device: str, function: Callable[[], object]) -> float:
    """Return the seconds of a call; on a GPU those of its stream, without waiting for the CPU."""
    if device == "cpu":
        return seconds_of(function)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def measure(case: Case, mode: str, device: str, rounds: int) -> dict:
    """Return the median seconds of each way, and of the ratios of a round to ours."""
    function = run if mode == "forward" else run_with_backward
    runs = {way: partial(seconds_on, device, partial(function, way, case)) for way in WAYS}
    with torch.set_grad_enabled(mode != "forward"):
        interleaved(runs, 1)  # for warming up
        times = interleaved(runs, rounds)
    row = {"case": case.name, "mode": mode, "rounds": rounds}
    row["seconds"] = {way: statistics.median(values) for way, values in times.items()}
    row["times_faster"] = {
        way: statistics.median(b / a for a, b in zip(times["ours"], values, strict=True))
        for way, values in times.items()
    }
    if mode == "forward":
        row["seconds"]["floor"] = case.bytes_needed() / copy_bandwidth(device)
    return row


def print_row(row: dict) -> None:
    cells = [f"{name} {1000 * seconds:.4g} ms" for name, seconds in row["seconds"].items()]
    faster = [f"{row['times_faster'][name]:.1f}x {name}" for name in WAYS[1:]]
    print(f"{row['case']:<22} {row['mode']:<17}", " | ".join(cells), "| ours is", ", ".join(faster))


def plot(rows: list[dict], growth: dict[str, list[dict]], path: Path, heading: str) -> None:
    """Draw bars of the cases, and curves of what grows."""
    figure = Figure(figsize=(20, 6), layout="tight")
    axes = figure.subplots(1, 1 + len(growth))
    for offset, way in enumerate(WAYS):
        values = [1000 * row["seconds"][way] for row in rows]
        axes[0].bar([i + 0.2 * offset for i in range(len(rows))], values, 0.2, label=way)
    labels = [f"{row['case']}\n{row['mode']}".replace(", ", "\n") for row in rows]
    axes[0].set_xticks([i + 0.3 for i in range(len(rows))], labels, rotation=60)
    for axis, (what, points) in zip(axes[1:], growth.items(), strict=True):
        x = [point[what] for point in points]
        for way in [*WAYS, "floor"]:
            axis.plot(x, [1000 * p["seconds"][way] for p in points], marker="o", label=way)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(x, x)
        axis.set_xlabel(f"{what} (MNC, forward)")
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylabel("ms")
        axis.legend()
    figure.suptitle(heading)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and PNG")
    parser.add_argument("--name", help="of these files, without their ending")
    args = parser.parse_args()
    device, rounds = args.device, args.rounds
    torch.set_num_threads(args.threads)

    number = 64 if device == "cpu" else 300
    few = max(rounds // 2, 1)
    both = "forward+backward"
    plan = [
        (mnc(device, name="MNC, 300 boxes"), "forward", rounds),
        (mnc(device, number, name=f"MNC, {number} boxes"), both, rounds),
        (fpn(device, name="FPN, 512 boxes"), "forward", rounds),
        (fpn(device, name="FPN, 512 boxes"), both, few),
        (mnc(device, 64, images=4, name="MNC, 4 x 64 boxes"), "forward", few),
        (mnc(device, 64, images=4, name="MNC, 4 x 64 boxes"), both, few),
        (mnc(device, 1, name="MNC, one box"), "forward", 3 * rounds),
        (mnc(device, 1, name="MNC, one box"), both, 3 * rounds),
        (one_box_of_fpn(device, "FPN, one box"), "forward", 3 * rounds),
        (one_box_of_fpn(device, "FPN, one box"), both, rounds),
    ]
    rows = []
    for case, mode, case_rounds in plan:
        rows.append(measure(case, mode, device, case_rounds))
        print_row(rows[-1])
    growth = {}
    for what, argument, values in [
        ("boxes", "boxes", [1, 10, 100, 1000]),
        ("channels", "channels", [32, 128, 512]),
        ("output size", "samples", [14, 28, 56]),
    ]:
        growth[what] = []
        for value in values:
            sizes = {"boxes": 100, argument: value, "name": f"MNC, {value} {argument}"}
            point = value // 2 if argument == "samples" else value
            growth[what].append(
                {what: point, **measure(mnc(device, **sizes), "forward", device, few)}
            )
            print_row(growth[what][-1])
    path = args.output / f"{args.name or f'roi_warp_{device}'}.json"
    figures = {"torchvision": torchvision.__version__, "rows": rows, "growth": growth}
    write_record(path, figures, device)
    heading = f"RoI warp on {machine_name(device)}, medians, lower is better"
    plot(rows, growth, path.with_suffix(".png"), heading)


if __name__ == "__main__":
    main()
