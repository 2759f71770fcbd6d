#!/usr/bin/env python
"""What the semantic branch of the study's models gets wrong, by pixels and by objects.

    benchmarks/study_semantic.py --iterations 600 --seeds 1 2 3 4

takes the averaged weights that `study.py run` has left in --output, prints Markdown tables, and
writes benchmarks/results/study/semantic_<iterations>_iterations.json. An object is taken for the
class of things that the branch finds likeliest over its visible pixels, so that the rates can be
compared with those of the box heads: see study_class_errors.py.

Letters: K labels, images of H x W pixels.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.structures import polygons_to_bitmask
from record import write_record
from study_class_errors import kind_of_error
from study_rows import ROWS
from study_schedule import RECORDS, Schedule
from study_training import parse_options, start, study_config

from hybrid_cascade.data.toy_scenes import IGNORE_LABEL, SEMANTIC_CLASSES, THING_CLASSES
from hybrid_cascade.engine import build_model, load_weights
from hybrid_cascade.evaluation.label_maps import read_label_map

K = len(SEMANTIC_CLASSES)
# Those that learn the same label maps.
BRANCHES = ("htc_box", "htc_mask", "htc", "htc_semantic_weight_1", "htc_semantic_convs_4")


def predictions(row: str, weights: Path) -> Iterator[tuple[dict, np.ndarray]]:
    """Give for each image its record and the (K, H, W) probabilities of a model's branch."""
    cfg = study_config(row, "train.evaluate_sem_seg=True")
    model = build_model(cfg).eval()
    load_weights(model, str(weights))
    records = {record["image_id"]: record for record in DatasetCatalog.get("study_val")}
    for inputs in instantiate(cfg.dataloader.test):
        with torch.no_grad():
            (output,) = model(inputs)
        yield records[inputs[0]["image_id"]], output["sem_seg"].softmax(dim=0).numpy()


def errors(row: str, weights: Path) -> dict:
    """Return the (K, K) pixels by true and predicted label, and what objects are taken for."""
    kinds: Counter[str] = Counter()
    confusion = np.zeros((K, K), int)
    for record, probabilities in predictions(row, weights):
        size = probabilities.shape[1:]
        truth = read_label_map(record["sem_seg_file_name"])
        counted = truth != IGNORE_LABEL
        pairs = K * truth[counted] + probabilities.argmax(axis=0)[counted]
        confusion += np.bincount(pairs, minlength=K * K).reshape(K, K)
        for annotation in record["annotations"]:
            if not annotation["iscrowd"]:
                mask = polygons_to_bitmask(annotation["segmentation"], *size)
                likeliest = probabilities[: len(THING_CLASSES), mask].mean(axis=1).argmax()
                kinds[kind_of_error(annotation["category_id"], int(likeliest))] += 1
    rates = {
        kind: round(100 * kinds[kind] / kinds.total(), 2)
        for kind in ("right", "surroundings", "outline")
    }
    return {"objects": rates, "pixels": confusion.tolist()}


def print_tables(found: dict[str, list[dict]]) -> None:
    """Print the errors of each row, means over seeds, and where the pixels of its labels go."""
    print("| branch of | seeds | mIoU | objects: right | surroundings wrong | outline wrong |")
    print("|---|---|---|---|---|---|")
    for row, of_seeds in found.items():
        miou = statistics.mean(mean_iou(np.array(x["pixels"])) for x in of_seeds)
        rates = [
            f"{statistics.mean(x['objects'][kind] for x in of_seeds):.1f}"
            for kind in of_seeds[0]["objects"]
        ]
        print(f"| {ROWS[row].title} | {len(of_seeds)} | {miou:.1f} | {' | '.join(rates)} |")
    for row, of_seeds in found.items():
        confusion = np.sum([x["pixels"] for x in of_seeds], axis=0)
        shares = 100 * confusion / confusion.sum(axis=1, keepdims=True)
        print(
            f"\n{ROWS[row].title}: % of the pixels of a label (lines) by what they are taken for\n"
        )
        print(f"| | {' | '.join(SEMANTIC_CLASSES)} |\n|---{'|---' * K}|")
        for name, line in zip(SEMANTIC_CLASSES, shares, strict=True):
            print(f"| {name} | {' | '.join(f'{x:.0f}' for x in line)} |")


def mean_iou(confusion: np.ndarray) -> float:
    """Return mIoU in percent of (K, K) pixels by true and predicted label."""
    right = confusion.diagonal()
    return float(100 * (right / (confusion.sum(axis=0) + confusion.sum(axis=1) - right)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=BRANCHES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=600)
    args = parse_options(parser)
    start(args)
    schedule, found = Schedule(args.iterations), {}
    for row in args.rows:
        files = [schedule.weights(args.output, row, seed) for seed in args.seeds]
        found[row] = [errors(row, file) for file in files if file.exists()]
        if not found[row]:
            raise SystemExit(f"{files[0]} is missing: benchmarks/study.py run --rows {row}")
    path = RECORDS / f"semantic_{schedule.name}.json"
    write_record(path, {"rows": found})
    print_tables(found)


if __name__ == "__main__":
    main()
