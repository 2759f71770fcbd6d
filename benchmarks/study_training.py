"""What all trainings of the study share: options, scenes, configs, the training and its curve."""

import argparse
import hashlib
import json
import statistics
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from record import ROOT
from study_rows import ROWS
from train_net_run import quick_start_config

from hybrid_cascade.data.toy_scenes import register_toy_scenes
from hybrid_cascade.engine import Trainer, load_config

NUM_TRAIN, NUM_VAL, NUM_CURVE = 4000, 500, 100
CURVE_POINTS = 4
EMA_DECAY = 0.99


def parse_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options of a script, with those that all scripts of the study have."""
    parser.add_argument("--threads", type=int, default=1, help="of a training or a measurement")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "study")
    return parser.parse_args()


def start(args: argparse.Namespace) -> None:
    """Set the threads, log, and register the scenes."""
    setup_logger(name="hybrid_cascade")
    torch.set_num_threads(args.threads)
    register_scenes(ROOT / "datasets")


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


def train(row: str, seed: int, iterations: int, folder: Path, weights: Path | None) -> Trainer:
    """Train a row, or what is left of its training, from weights or from scratch."""
    trainer = Trainer(
        study_config(
            row,
            f"train.seed={seed}",
            f"train.max_iter={iterations}",
            f"train.init_checkpoint={weights or ''}",
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


def identity(weights: Path) -> str:
    """Return what tells a file of weights from others: the start of its SHA-256."""
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


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
