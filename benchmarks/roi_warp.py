"""RoI warp against what else computes it, or something alike, side by side.

    python benchmarks/roi_warp.py --device cpu --threads 2
    python benchmarks/roi_warp.py --device cuda

Prints a table, and writes benchmarks/results/roi_warp_<device>.json and .png. In every round each
contender runs once, in turn, so that a busy machine slows all of them; figures are medians.

- ours: `roi_warp`.
- grid_sample: `grid_sample` + `max_pool2d`, all boxes of an image in one call.
- roi_align 1, roi_align 2: `torchvision.ops.roi_align` with sampling_ratio 1 at all samples +
  `max_pool2d`, and with sampling_ratio 2 at the output's size. They have no gradient by the boxes.
- floor: the bytes that must be read and written / the copy bandwidth measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
import torchvision
from provenance import provenance
from torch import Tensor
from torch.nn import functional as F

from hybrid_cascade.layers import roi_warp

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

RESULTS = Path(__file__).parent / "results"
CONTENDERS = ["ours", "grid_sample", "roi_align 1", "roi_align 2"]


@dataclass
class Level:
    features: Tensor  # (N, C, H, W)
    boxes: Tensor  # (K, 5), by image
    scale: float


@dataclass
class Case:
    name: str
    levels: list[Level]
    samples: int  # of a box along each axis
    max_pool: int

    def bytes_needed(self) -> int:
        """Every feature is read once and every cell written once."""
        cells = (self.samples // self.max_pool) ** 2
        elements = sum(
            level.features.numel() + len(level.boxes) * level.features.shape[1] * cells
            for level in self.levels
        )
        return elements * self.levels[0].features.element_size()


def make_case(name, channels, maps, counts, samples, max_pool, images=1, device="cpu") -> Case:
    """`maps`: (height, width, stride) of each level; `counts`: boxes an image on each level."""
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


def run(contender: str, case: Case) -> list[Tensor]:
    outputs = []
    for level in case.levels:
        features, boxes, scale = level.features, level.boxes, level.scale
        if contender == "ours":
            output = roi_warp(features, boxes, case.samples, scale, case.max_pool)
        elif contender == "grid_sample":
            output = by_grid_sample(level, case.samples, case.max_pool)
        elif contender == "roi_align 1":
            output = torchvision.ops.roi_align(features, boxes, case.samples, scale, 1)
            output = F.max_pool2d(output, case.max_pool)
        else:
            size = case.samples // case.max_pool
            output = torchvision.ops.roi_align(features, boxes, size, scale, 2)
        outputs.append(output)
    return outputs


def run_with_backward(contender: str, case: Case) -> None:
    with_boxes = contender in ("ours", "grid_sample")
    inputs = [level.features for level in case.levels]
    inputs += [level.boxes for level in case.levels if with_boxes]
    for tensor in inputs:
        tensor.requires_grad_()
    outputs = run(contender, case)
    torch.autograd.grad(outputs, inputs, [torch.ones_like(output) for output in outputs])
    for tensor in inputs:
        tensor.requires_grad_(False)


def time_of(function, device: str) -> float:
    """Seconds of one call."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def copy_bandwidth(device: str) -> float:
    """Bytes read plus bytes written in a second, by a copy that no cache holds."""
    source = torch.zeros(2**28 if device == "cuda" else 2**25, device=device)
    target = torch.zeros_like(source)
    times = [time_of(lambda: target.copy_(source), device) for _ in range(9)]
    return 2 * source.numel() * source.element_size() / statistics.median(times)


def measure(case: Case, mode: str, device: str, rounds: int) -> dict:
    """Median seconds of each contender, and of the ratios of a round to ours."""
    function = run if mode == "forward" else run_with_backward
    times = {contender: [] for contender in CONTENDERS}
    with torch.set_grad_enabled(mode != "forward"):
        for index in range(rounds + 1):
            for contender, values in times.items():
                seconds = time_of(lambda c=contender: function(c, case), device)
                if index:  # the first is for warming up
                    values.append(seconds)
    row = {"case": case.name, "mode": mode, "rounds": rounds}
    row["seconds"] = {name: statistics.median(values) for name, values in times.items()}
    row["times_faster"] = {
        name: statistics.median(b / a for a, b in zip(times["ours"], values, strict=True))
        for name, values in times.items()
    }
    if mode == "forward":
        row["seconds"]["floor"] = case.bytes_needed() / copy_bandwidth(device)
    return row


def print_row(row: dict) -> None:
    cells = [f"{name} {1000 * seconds:.4g} ms" for name, seconds in row["seconds"].items()]
    faster = [f"{row['times_faster'][name]:.1f}x {name}" for name in CONTENDERS[1:]]
    print(f"{row['case']:<22} {row['mode']:<17}", " | ".join(cells), "| ours is", ", ".join(faster))


def plot(rows: list[dict], growth: dict[str, list[dict]], path: Path, title: str) -> None:
    figure, axes = plt.subplots(1, 1 + len(growth), figsize=(20, 6))
    for offset, name in enumerate(CONTENDERS):
        values = [1000 * row["seconds"][name] for row in rows]
        axes[0].bar([i + 0.2 * offset for i in range(len(rows))], values, 0.2, label=name)
    labels = [f"{row['case']}\n{row['mode']}".replace(", ", "\n") for row in rows]
    axes[0].set_xticks([i + 0.3 for i in range(len(rows))], labels, rotation=60)
    for axis, (what, points) in zip(axes[1:], growth.items(), strict=True):
        for name in [*CONTENDERS, "floor"]:
            values = [1000 * point["seconds"][name] for point in points]
            axis.plot([point[what] for point in points], values, marker="o", label=name)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks([point[what] for point in points], [point[what] for point in points])
        axis.set_xlabel(f"{what} (MNC, forward)")
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylabel("ms")
        axis.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device, rounds = arguments.device, arguments.rounds
    torch.set_num_threads(arguments.threads)

    training_boxes = 64 if device == "cpu" else 300
    few = max(rounds // 2, 1)
    plan = [
        (mnc(device, name="MNC, 300 boxes"), "forward", rounds),
        (
            mnc(device, training_boxes, name=f"MNC, {training_boxes} boxes"),
            "forward+backward",
            rounds,
        ),
        (fpn(device, name="FPN, 512 boxes"), "forward", rounds),
        (fpn(device, name="FPN, 512 boxes"), "forward+backward", few),
        (mnc(device, 64, images=4, name="MNC, 4 x 64 boxes"), "forward", few),
        (mnc(device, 64, images=4, name="MNC, 4 x 64 boxes"), "forward+backward", few),
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
            case = mnc(
                device, **{"boxes": 100, argument: value, "name": f"MNC, {value} {argument}"}
            )
            point = value // 2 if argument == "samples" else value
            growth[what].append({what: point, **measure(case, "forward", device, few)})
            print_row(growth[what][-1])

    origin = provenance(device)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"roi_warp_{device}.json"
    record = {
        **origin,
        "torchvision": torchvision.__version__,
        "rows": rows,
        "growth": growth,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    title = f"RoI warp on {origin['machine']}, medians, lower is better"
    plot(rows, growth, path.with_suffix(".png"), title)
    print(f"wrote {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
