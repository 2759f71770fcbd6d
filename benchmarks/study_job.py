#!/usr/bin/env python
"""One run of the study: train a row with a seed, evaluate it, write its record.

    benchmarks/study_job.py --row htc --seed 1 --iterations 600 --output output/study

starts from the backbone of study_pretraining.py, or with --from-scratch from random weights.
`study.py run` calls it. A training that was stopped goes on from its last checkpoint.
"""

import argparse
import json
from pathlib import Path

from detectron2.data import MetadataCatalog
from record import write_record
from study_bootstrap import ap_of_objects, bootstrap_ap, match
from study_class_errors import class_errors
from study_rows import ROWS, USUAL
from study_schedule import Schedule, pretrained_weights
from study_training import curve, identity, parse_options, start, study_config, train
from torch import nn

from hybrid_cascade.engine import build_model, evaluate

# Of an object that others hide in part, less than this is visible. That is every sixth.
OCCLUDED_BELOW = 0.95
METRICS = ("AP", "AP50", "AP75", "APs", "APm")  # COCO's large objects do not fit into the scenes


def measure(row: str, trained: nn.Module, folder: Path, overrides: tuple[str, ...] = ()) -> dict:
    """Return what weights reach with a way to evaluate them.

    Returns:
        For each of "bbox" and "segm" a dict of COCO's metrics in percent, AP of "occluded" and of
        "unoccluded" objects, and "bootstrap", AP of the replicates; and "class_errors".
    """
    cfg = study_config(row, *overrides, f"train.output_dir={folder}")
    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(cfg).eval()
    model.load_state_dict(trained.state_dict())
    found = evaluate(cfg, model, check_data=False)
    results = json.loads((folder / "inference" / "coco_instances_results.json").read_text())
    annotations = MetadataCatalog.get("study_val").json_file
    objects = json.loads(Path(annotations).read_text())["annotations"]
    occluded, unoccluded = by_occlusion(objects)
    measured: dict = {"class_errors": class_errors(objects, results)}
    for task in ("bbox", "segm"):
        matched = match(annotations, results, task)
        measured[task] = {name: round(found[task][name], 2) for name in METRICS} | {
            "occluded": ap_of_objects(matched, occluded),
            "unoccluded": ap_of_objects(matched, unoccluded),
            "bootstrap": bootstrap_ap(matched)[1:],
        }
    return measured


def by_occlusion(objects: list[dict]) -> tuple[set[int], set[int]]:
    """Return the ids of the objects that others hide in part, and those of the other objects."""
    occluded = {x["id"] for x in objects if x["visible_fraction"] < OCCLUDED_BELOW}
    return occluded, {x["id"] for x in objects} - occluded


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", required=True, choices=ROWS)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--iterations", required=True, type=int)
    parser.add_argument("--from-scratch", action="store_true")
    args = parse_options(parser)
    start(args)
    schedule = Schedule(args.iterations, args.from_scratch)
    folder = schedule.folder(args.output, args.row, args.seed)
    weights = None if args.from_scratch else pretrained_weights(args.output)
    trainer = train(args.row, args.seed, args.iterations, folder, weights)
    evaluations = {
        USUAL: measure(args.row, trainer.model, folder / "last"),
        "averaged weights": measure(args.row, trainer.evaluated_model, folder / "averaged"),
    }
    for title, overrides in ROWS[args.row].inference.items():
        evaluations[title] = measure(args.row, trainer.model, folder / title, overrides)
    points, seconds = curve(folder, args.iterations)
    write_record(
        schedule.record(args.row, args.seed),
        {
            "row": args.row,
            "config": f"configs/quick_start/{ROWS[args.row].config}.py",
            "overrides": ROWS[args.row].overrides,
            "seed": args.seed,
            "iterations": args.iterations,
            "backbone": weights and identity(weights),
            "median_seconds_of_an_iteration": round(seconds, 4),
            "curve": points,
            "evaluations": evaluations,
        },
    )
    for checkpoint in folder.glob("model_*.pth"):
        checkpoint.unlink()  # half a gigabyte; weights_final.pth stays


if __name__ == "__main__":
    main()
