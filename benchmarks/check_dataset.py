"""How long the checks of annotations take, and how much memory, on a dataset of COCO's size.

    python benchmarks/check_dataset.py

The dataset is made up: as many images and instances as COCO's train2017, each instance with
polygons of as many points as there on average. What is measured is a process of its own that checks
the file, loads it as a training does, and checks the result. Image files are not opened.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from record import RESULTS, write_record

NUM_IMAGES = 118_000
NUM_INSTANCES = 860_000
NUM_CLASSES = 80
POINTS = 22  # of a polygon, on average
WIDTH, HEIGHT = 640, 480
NAME = "made_up_coco"


def write_annotations(path: Path, num_images: int, num_instances: int) -> None:
    """Write a file in COCO's format, instance by instance."""
    rng = np.random.default_rng(0)
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "width": WIDTH, "height": HEIGHT}
        for i in range(num_images)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, NUM_CLASSES + 1)]
    with open(path, "w") as file:
        head = {"images": images, "categories": categories}
        file.write(json.dumps(head)[:-1] + ', "annotations": [')
        for i in range(num_instances):
            file.write(("," if i else "") + json.dumps(_instance(i + 1, num_images, rng)))
        file.write("]}")


def _instance(index: int, num_images: int, rng: np.random.Generator) -> dict:
    width, height = rng.uniform(8, 200, 2)
    x, y = rng.uniform(0, (WIDTH - width, HEIGHT - height))
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(POINTS // 2, POINTS * 3 // 2 + 1)))
    points = np.stack([x + width * (1 + np.cos(angles)) / 2, y + height * (1 + np.sin(angles)) / 2])
    low, high = points.min(1), points.max(1)
    return {
        "id": index,
        "image_id": int(rng.integers(num_images)),
        "category_id": int(rng.integers(NUM_CLASSES)) + 1,
        "iscrowd": 0,
        "area": round(width * height * np.pi / 4, 2),
        "bbox": np.round([*low, *(high - low)], 2).tolist(),
        "segmentation": [np.round(points.T.reshape(-1), 2).tolist()],
    }


def measure(path: str, connection) -> None:
    """Send the figures of each step."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    from hybrid_cascade.data import check_coco_file, check_dataset

    register_coco_instances(NAME, {}, path, "images")
    figures = {}
    with _timed("check_coco_file", figures):
        check_coco_file(NAME, evaluation=True, masks=True)
    with _timed("detectron2_load", figures):
        dataset = DatasetCatalog.get(NAME)
    with _timed("check_dataset", figures):
        check_dataset(dataset, NAME, num_classes=NUM_CLASSES, max_images=0)
    connection.send(figures)


@contextmanager
def _timed(step: str, figures: dict) -> Iterator[None]:
    """Add the seconds of a step, those of the processor, and the process's peak memory so far."""
    start, start_cpu = time.perf_counter(), time.process_time()
    yield
    figures[step] = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - start_cpu, 1),
        "peak_gb": _peak_memory(),
    }


def _peak_memory() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=NUM_IMAGES)
    parser.add_argument("--instances", type=int, default=NUM_INSTANCES)
    parser.add_argument("--output", type=Path, default=RESULTS / "check_dataset.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_annotations(path, args.images, args.instances)
        figures = {"images": args.images, "instances": args.instances}
        figures["file_mb"] = round(path.stat().st_size / 1e6)
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(str(path), sender))
        process.start()
        figures |= receiver.recv()
        process.join()
    for key, value in figures.items():
        print(f"{key}: {value}")
    write_record(args.output, figures)


if __name__ == "__main__":
    main()
