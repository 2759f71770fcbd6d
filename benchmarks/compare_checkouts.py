#!/usr/bin/env python
"""Whether two checkouts of this project compute the same, to the last bit, and equally fast.

    python benchmarks/compare_checkouts.py --before ../before --after . [--rounds 5]
        [--weights htc_toy=../before/output/quick_start/model_final.pth]

Each checkout runs in processes of its own, with its library compiled. From the same weights every
toy model detects in images, and takes a training step: detections, losses, gradients and updated
parameters are compared. With --rounds, processes of the two checkouts then take turns in timing
HTC's inference and training step, and RoI warp's forward and backward pass. Exit code 1: something
differs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

MODELS = (
    "htc_toy",
    "htc_without_semantic_toy",
    "cascade_mask_rcnn_toy",
    "mask_rcnn_toy",
    "faster_rcnn_toy",
    "htc_sfpn_toy",
    "cascade_mask_rcnn_sfpn_toy",
    "mnc_toy",
    "ssd_toy",
)
THREADS = "2"


def build(checkout: Path, name: str):
    from hybrid_cascade.engine import build_model, load_config

    torch.manual_seed(0)
    path = checkout / "configs" / "quick_start" / f"{name}.py"
    cfg = load_config(str(path), ["train.device=cpu"])
    return cfg, build_model(cfg)


def load_images(cfg) -> list[dict]:
    from detectron2.config import instantiate
    from detectron2.data import DatasetCatalog
    from detectron2.utils.env import seed_all_rng

    mapper = instantiate(cfg.dataloader.train.mapper)
    seed_all_rng(0)
    return [mapper(image) for image in DatasetCatalog.get("few_scenes_train")[2:6]]


def train_step(model, images: list[dict], lr: float) -> dict[str, torch.Tensor]:
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import EventStorage

    optimizer = torch.optim.SGD(model.parameters(), lr)
    seed_all_rng(0)
    with EventStorage():
        losses = model(images)
        sum(losses.values()).backward()
    optimizer.step()
    return losses


def record(checkout: Path, name: str, weights: str, start: Path) -> dict[str, torch.Tensor]:
    """Return everything that a model computes, by name; `start` keeps the weights for both."""
    cfg, model = build(checkout, name)
    if weights:
        model.load_state_dict(torch.load(weights, weights_only=True)["model"])
    elif start.exists():
        model.load_state_dict(torch.load(start, weights_only=True))
    else:
        torch.save(model.state_dict(), start)
    if not weights:  # what was never trained is sure of nothing
        for module in model.modules():
            for threshold in ("test_score_thresh", "score_thresh"):
                if hasattr(module, threshold):
                    setattr(module, threshold, 0.0)
    images = load_images(cfg)
    found = {}
    with torch.no_grad():
        for index, output in enumerate(model(images)):
            for field, value in output["instances"].get_fields().items():
                found[f"image {index} {field}"] = getattr(value, "tensor", value)
    losses = train_step(model.train(), images, lr=0.01)
    found.update({f"loss {key}": value.detach() for key, value in losses.items()})
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient {key}"] = parameter.grad
        found[f"updated {key}"] = parameter.detach()
    return found


def take_times(checkout: Path) -> dict[str, float]:
    """Return seconds, medians of 9 calls each."""
    from hybrid_cascade.layers import roi_warp

    cfg, model = build(checkout, "htc_toy")
    images = load_images(cfg)
    features = torch.randn(1, 512, 38, 63, requires_grad=True)
    corners = torch.rand(300, 2) * 400
    boxes = torch.cat([torch.zeros(300, 1), corners, corners + 150], dim=1).requires_grad_()

    def warp(backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            warped = roi_warp(features, boxes, 28, 1 / 16, max_pool=2)
        if backward:
            warped.sum().backward()

    def detect() -> None:
        with torch.no_grad():
            model.eval()(images)

    calls = {
        "HTC inference": detect,
        "HTC training step": lambda: train_step(model.train(), images, lr=0.0),
        "RoI warp forward": lambda: warp(False),
        "RoI warp forward and backward": lambda: warp(True),
    }
    seconds = {}
    for name, call in calls.items():
        call()
        times = []
        for _ in range(9):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds[name] = statistics.median(times)
    return seconds


def work(checkout: Path, job: str, output: Path, weights: str) -> None:
    from hybrid_cascade.data import register_toy_scenes

    torch.set_num_threads(int(THREADS))
    register_toy_scenes(str(output.parent / "scenes"), "few_scenes", num_train=6, num_val=2)
    if job == "times":
        output.write_text(json.dumps(take_times(checkout)))
    else:
        torch.save(record(checkout, job, weights, output.parent / f"{job}_start.pth"), output)


def run(checkout: Path, job: str, output: Path, weights: str = "") -> Path:
    """Let a process of a checkout do a job."""
    packages = str(checkout / "projects")
    environment = {**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": THREADS}
    command = [sys.executable, str(Path(__file__).resolve()), "--work", str(checkout), job]
    subprocess.run([*command, str(output), weights], env=environment, check=True)
    return output


def compare(before: Path, after: Path) -> list[str]:
    """Return what differs between two records, and print how much is equal."""
    old, new = (torch.load(path, weights_only=True) for path in (before, after))
    differences = [f"only in one: {key}" for key in sorted(old.keys() ^ new.keys())]
    for key in old.keys() & new.keys():
        if old[key].shape != new[key].shape:
            differences.append(f"{key}: {tuple(old[key].shape)}, {tuple(new[key].shape)}")
        elif not torch.equal(old[key], new[key]):
            largest = (old[key].double() - new[key].double()).abs().max()
            differences.append(f"{key}: up to {largest:g}")
    detections = sum(len(value) for key, value in old.items() if key.endswith("scores"))
    print(f"{len(old)} tensors, {detections} detections; {len(differences)} differ", flush=True)
    return differences


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        checkout, job, output, weights = sys.argv[2:]
        work(Path(checkout), job, Path(output), weights)
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--weights", nargs="*", default=[], help="model=file, trained weights")
    parser.add_argument("--rounds", type=int, default=0, help="of timing; 0: none")
    args = parser.parse_args()
    checkouts = {"before": args.before.resolve(), "after": args.after.resolve()}
    weights = dict(item.split("=", 1) for item in args.weights)
    differences = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            print(f"{name}: ", end="", flush=True)
            records = [
                run(checkout, name, Path(folder) / f"{side}.pth", weights.get(name, ""))
                for side, checkout in checkouts.items()
            ]
            found = compare(*records)
            print("".join(f"  {line}\n" for line in found[:10]), end="")
            differences += len(found)
        ratios: dict[str, list[float]] = {}
        for index in range(args.rounds):
            seconds = {}
            for side in sorted(checkouts, reverse=index % 2 == 1):
                path = run(checkouts[side], "times", Path(folder) / f"{side}.json")
                seconds[side] = json.loads(path.read_text())
            for name, value in seconds["after"].items():
                ratios.setdefault(name, []).append(value / seconds["before"][name])
        for name, values in ratios.items():
            spread = f"{min(values):.2f} to {max(values):.2f}"
            print(f"{name}, after / before: {statistics.median(values):.2f} ({spread})")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
