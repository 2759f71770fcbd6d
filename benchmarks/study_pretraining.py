#!/usr/bin/env python
"""Pretrain the ResNet that all models of the study start from, as those for COCO do on ImageNet.

    benchmarks/study_pretraining.py --output output/study

trains Mask R-CNN on the study's scenes, with a seed that no row has, and keeps its bottom-up
backbone. FPN, RPN and heads of the rows start from random weights. `study.py run` calls it.
"""

import argparse
from pathlib import Path

import torch
from detectron2.utils.logger import setup_logger
from record import ROOT, write_record
from study_comparison import RECORDS
from study_job import curve, pretrained_weights, register_scenes, train

ROW, SEED, ITERATIONS = "mask_rcnn", 0, 2400
PREFIX = "backbone.bottom_up."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "study")
    args = parser.parse_args()
    setup_logger(name="hybrid_cascade")
    torch.set_num_threads(args.threads)
    register_scenes(ROOT / "datasets")
    path = pretrained_weights(args.output)
    trainer = train(ROW, SEED, ITERATIONS, path.parent)
    weights = trainer.model.state_dict()
    torch.save({"model": {k: v for k, v in weights.items() if k.startswith(PREFIX)}}, path)
    points, seconds = curve(path.parent, ITERATIONS)
    write_record(
        RECORDS / "pretraining.json",
        {
            "row": ROW,
            "seed": SEED,
            "iterations": ITERATIONS,
            "median_seconds_of_an_iteration": round(seconds, 4),
            "curve": points,
        },
    )


if __name__ == "__main__":
    main()
