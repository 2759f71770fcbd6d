"""Profile our HTC by operator, and count what the GPU waits for.

    python benchmarks/model_profile.py --images a.jpg --device cuda

Prints, for inference of one image and a step of training, the operators that take longest, and
writes them to benchmarks/results/profile_<device>.json. The weights are random (see models.py); the
step of training has two instances that are as large as the image and its quarter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from detectron2.structures import Boxes, Instances, PolygonMasks
from model_inputs import ground_truth, read_images
from model_process import HTC_CONFIG
from model_worker import Worker
from record import RESULTS, ROOT, write_record
from timing import Parts, seconds_of
from torch.profiler import ProfilerActivity, profile

ROWS = 25


def with_ground_truth(image: dict) -> dict:
    """Return an image with two instances."""
    height, width = image["image"].shape[-2:]
    boxes = torch.tensor([[0.0, 0, width, height], [0, 0, width / 2, height / 2]])
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    return image | ground_truth(
        Instances(
            (height, width),
            gt_boxes=Boxes(boxes),
            gt_classes=torch.tensor([0, 1]),
            gt_masks=PolygonMasks(polygons),
        )
    )


def profile_of(worker: Worker, device: str) -> dict:
    """Run the worker's first batch three times; return the figures of the last run."""
    run = worker.prepare(0, Parts())
    run()
    seconds = seconds_of(run, device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        seconds_of(run, device)
    averages = profiler.key_averages()
    sort = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    print(averages.table(sort_by=sort, row_limit=ROWS, max_name_column_width=60))
    time = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    longest = sorted(averages, key=lambda event: getattr(event, time), reverse=True)[:ROWS]
    waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "aten::_local_scalar_dense")
    return {
        "seconds": seconds,
        "longest": [
            {"name": e.key, "calls": e.count, "milliseconds": getattr(e, time) / 1000}
            for e in longest
        ],
        "waits": {event.key: event.count for event in averages if event.key in waits},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", nargs="+", required=True, help="image files; the first counts")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--short-edge", type=int, default=800)
    parser.add_argument("--config", default=HTC_CONFIG, help="a LazyConfig")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    args = parser.parse_args()
    image = with_ground_truth(read_images(args.images[:1], args.short_edge)[0])
    worker = Worker(
        amp=False,
        kind="ours",
        weights=None,
        device=args.device,
        config=str(ROOT / args.config),
        settings=[],
    )
    worker.batches = [[image]]
    worker.detector.model.eval()
    worker.detector.standardize_weights([image])
    figures = {}
    for task, training in (("inference", False), ("training", True)):
        worker.prepare_for(training)
        figures[task] = profile_of(worker, args.device)
    write_record(args.output / f"profile_{args.device}.json", figures, args.device)


if __name__ == "__main__":
    main()
