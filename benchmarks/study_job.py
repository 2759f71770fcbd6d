#!/usr/bin/env python
"""One run of the study: train a row with a seed, evaluate it, write its record.

    benchmarks/study_job.py --row htc --seed 1 --iterations 600 --output output/study

starts from the backbone of study_pretraining.py, or with --from-scratch from random weights.
`study.py run` calls it. A training that was stopped goes on from its last checkpoint.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from record import ROOT, write_record
from study_bootstrap import ap_of_objects, bootstrap_ap, match
from study_class_errors import class_errors
from study_comparison import RECORDS
from study_rows import ROWS, USUAL
from torch import nn
from train_net_run import quick_start_config

from hybrid_cascade.data.toy_scenes import register_toy_scenes
from hybrid_cascade.engine import Trainer, build_model, evaluate, load_config

NUM_TRAIN, NUM_VAL, NUM_CURVE = 4000, 500, 100
CURVE_POINTS = 4
EMA_DECAY = 0.99
# Of an object that others hide in part, less than this is visible. That is every sixth.
OCCLUDED_BELOW = 0.95
METRICS = ("AP", "AP50", "AP75", "APs", "APm")  # COCO's large objects do not fit into the scenes


def register_scenes(root: Path) -> None:
    """Register the scenes of the study: other ones than those of the quick start.

    "study_val" has 500, "study_curve_val" 100 more, for what is measured during a training.
    """
    register_toy_scenes(
        str(root / "study"), "study", num_train=NUM_TRAIN, num_val=NUM_VAL, seed=2027
    )
    register_toy_scenes(
        str(root / "study_curve"), "study_curve", num_train=2, num_val=NUM_CURVE, seed=2028
    )


def pretrained_weights(output: Path) -> Path:
    """Return where study_pretraining.py leaves the backbone."""
    return output / "pretraining" / "bottom_up.pth"


def schedule_name(iterations: int, from_scratch: bool) -> str:
    """Return the name of the folder for runs of this length and start."""
    return f"{iterations}_iterations" + ("_from_scratch" if from_scratch else "")


def study_config(row: str, *overrides: str) -> DictConfig:
    """Return the config of a row on the study's scenes."""
    common = (
        "dataloader.train.dataset.names=study_train",
        "dataloader.test.dataset.names=study_val",
        "train.num_panels=0",
        "train.report.enabled=False",
    )
    return load_config(
        quick_start_config(ROWS[row].config), [*common, *ROWS[row].overrides, *overrides]
    )


def train(row: str, seed: int, iterations: int, folder: Path, weights: str = "") -> Trainer:
    """Train a row, or what is left of its training, from weights or, without, from scratch."""
    trainer = Trainer(
        study_config(
            row,
            f"train.seed={seed}",
            f"train.max_iter={iterations}",
            f"train.init_checkpoint={weights}",
            f"train.eval_period={iterations // CURVE_POINTS}",
            f"train.checkpointer.period={iterations // CURVE_POINTS}",
            "train.checkpointer.max_to_keep=1",
            f"train.ema_decay={EMA_DECAY}",
            f"train.output_dir={folder}",
            "dataloader.test.dataset.names=study_curve_val",
        )
    )
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


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
    occluded, unoccluded = by_occlusion(annotations)
    measured: dict = {"class_errors": class_errors(annotations, results)}
    for task in ("bbox", "segm"):
        matched = match(annotations, results, task)
        measured[task] = {name: round(found[task][name], 2) for name in METRICS} | {
            "occluded": ap_of_objects(matched, occluded),
            "unoccluded": ap_of_objects(matched, unoccluded),
            "bootstrap": bootstrap_ap(matched)[1:],
        }
    return measured


def by_occlusion(annotations: str) -> tuple[set[int], set[int]]:
    """Return the ids of the objects that others hide in part, and those of the other objects."""
    objects = json.loads(Path(annotations).read_text())["annotations"]
    occluded = {x["id"] for x in objects if x["visible_fraction"] < OCCLUDED_BELOW}
    return occluded, {x["id"] for x in objects} - occluded


def curve(folder: Path, iterations: int) -> tuple[list[list[float]], float]:
    """Return AP during a training as [iteration, box AP, mask AP], and its seconds an iteration."""
    lines = [json.loads(x) for x in (folder / "metrics.json").read_text().splitlines()]
    points = {
        min(line["iteration"] + 1, iterations): [
            round(line["bbox/AP"], 2),
            round(line["segm/AP"], 2),
        ]
        for line in lines
        if "bbox/AP" in line
    }
    seconds = statistics.median(line["time"] for line in lines if "time" in line)
    return [[iteration, *aps] for iteration, aps in sorted(points.items())], seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", required=True, choices=ROWS)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--iterations", required=True, type=int)
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "study")
    args = parser.parse_args()
    setup_logger(name="hybrid_cascade")
    torch.set_num_threads(args.threads)
    register_scenes(ROOT / "datasets")
    schedule = schedule_name(args.iterations, args.from_scratch)
    folder = args.output / schedule / f"{args.row}_{args.seed}"
    weights = "" if args.from_scratch else str(pretrained_weights(args.output))
    trainer = train(args.row, args.seed, args.iterations, folder, weights)
    evaluations = {
        USUAL: measure(args.row, trainer.model, folder / "last"),
        "averaged weights": measure(args.row, trainer.evaluated_model, folder / "averaged"),
    }
    for title, overrides in ROWS[args.row].inference.items():
        evaluations[title] = measure(args.row, trainer.model, folder / title, overrides)
    points, seconds = curve(folder, args.iterations)
    write_record(
        RECORDS / schedule / f"{args.row}_{args.seed}.json",
        {
            "row": args.row,
            "config": f"configs/quick_start/{ROWS[args.row].config}.py",
            "overrides": ROWS[args.row].overrides,
            "seed": args.seed,
            "iterations": args.iterations,
            "from_scratch": args.from_scratch,
            "median_seconds_of_an_iteration": round(seconds, 4),
            "curve": points,
            "evaluations": evaluations,
        },
    )
    for checkpoint in folder.glob("model_*.pth"):
        checkpoint.unlink()  # half a gigabyte; weights_final.pth stays


if __name__ == "__main__":
    main()
