"""How long COCO's metrics take with pycocotools and with hotcoco, and in what they differ.

Also how long the picture of precision over recall takes, from what `FastCOCOEvaluator` has saved
and from its results, which are evaluated for it.

    python benchmarks/coco_evaluation.py
    python benchmarks/coco_evaluation.py --annotations val.json

Without annotations, 5,000 images are made up, with as many objects as COCO has. Detections are the
objects with noise, some of them with a wrong class.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from check_dataset import write_annotations
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from pycocotools import mask as coco_mask
from record import RESULTS, write_record

from hybrid_cascade.evaluation import FastCOCOEvaluator
from hybrid_cascade.evaluation.precision_recall import load_precision_recall
from hybrid_cascade.visualization import plot_precision_recall
from hybrid_cascade.visualization.precision_recall import draw_precision_recall

NAME = "measured_twice"


def make_detections(content: dict) -> Iterator[dict]:
    """Yield detections of an annotation file in COCO's result format, their classes from 0."""
    random = np.random.default_rng(0)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    classes = {
        c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: c["id"]))
    }
    for annotation in content["annotations"]:
        if not isinstance(annotation["segmentation"], list):
            continue
        for _ in range(random.integers(0, 4)):
            shift = random.normal(0, 0.08, 2) * annotation["bbox"][2:]
            outlines = [
                (np.reshape(p, (-1, 2)) + shift).clip(0).flatten().tolist()
                for p in annotation["segmentation"]
            ]
            size = sizes[annotation["image_id"]]
            mask = coco_mask.merge(coco_mask.frPyObjects(outlines, *size))
            box = np.array(annotation["bbox"]) + [*shift, *random.normal(0, 2, 2)]
            is_right = random.random() < 0.8
            label = (
                classes[annotation["category_id"]] if is_right else random.integers(len(classes))
            )
            yield {
                "image_id": annotation["image_id"],
                "category_id": int(label),
                "bbox": box.clip(0).tolist(),
                "score": float(random.random()),
                "segmentation": {**mask, "counts": mask["counts"].decode()},
            }


def measure(
    kind: type[COCOEvaluator], detections: list[dict], folder: str | None = None
) -> tuple[dict, float]:
    """Return the metrics, and the seconds that they took; `COCOEvaluator` changes its input.

    Results are written into the folder, if there is one.
    """
    fast = kind is FastCOCOEvaluator
    evaluator = kind(NAME, distributed=False, output_dir=folder, use_fast_impl=fast)
    evaluator.reset()
    evaluator._predictions = [{"instances": [dict(x) for x in detections]}]
    start = time.perf_counter()
    metrics = evaluator.evaluate()
    return metrics, time.perf_counter() - start


def measure_curves(json_file: str, folder: str) -> dict[str, float]:
    """Return the seconds of the picture both ways, of the results in the folder."""
    start = time.perf_counter()
    draw_precision_recall(load_precision_recall(folder), f"{folder}/curves.png")
    middle = time.perf_counter()
    plot_precision_recall(json_file, f"{folder}/coco_instances_results.json", f"{folder}/anew.png")
    end = time.perf_counter()
    return {"curves, as saved": middle - start, "curves, evaluated anew": end - middle}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", type=Path, help="in COCO's format")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "coco_evaluation.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.annotations or Path(folder) / "val.json"
        if args.annotations is None:
            write_annotations(path, 5_000, 36_000)
        content = json.loads(path.read_text())
        detections = list(make_detections(content))
        register_coco_instances(NAME, {}, str(path), folder)
        DatasetCatalog.get(NAME)
        measure(FastCOCOEvaluator, detections, folder)
        seconds: dict[str, list[float]] = {}
        metrics = {}
        for _ in range(args.repeats):
            for kind in (COCOEvaluator, FastCOCOEvaluator):
                metrics[kind.__name__], passed = measure(kind, detections)
                seconds.setdefault(kind.__name__, []).append(passed)
            for name, passed in measure_curves(str(path), folder).items():
                seconds.setdefault(name, []).append(passed)
    slow, fast = metrics.values()
    differences = [
        abs(fast[task][key] - value)
        for task in slow
        for key, value in slow[task].items()
        if not np.isnan(value)
    ]
    medians = {name: round(float(np.median(values)), 3) for name, values in seconds.items()}
    figures = {
        "images": len(content["images"]),
        "objects": len(content["annotations"]),
        "detections": len(detections),
        "AP": {task: round(slow[task]["AP"], 3) for task in slow},
        "figures compared": len(differences),
        "largest difference": max(differences),
        "seconds": medians,
    }
    print(json.dumps(figures, indent=1))
    write_record(args.output, figures)


if __name__ == "__main__":
    main()
