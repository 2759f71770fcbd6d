#!/usr/bin/env python
"""Pretrain the ResNet that all models of the study start from, as those for COCO do on ImageNet.

    benchmarks/study_pretraining.py --output output/study

trains Mask R-CNN on the study's scenes, with a seed that no row has, and keeps its bottom-up
backbone. FPN, RPN and heads of the rows start from random weights. `study.py run` calls it.
"""

import argparse

import torch
from record import write_record
from study_schedule import RECORDS, pretrained_weights
from study_training import curve, identity, parse_options, start, train

ROW, SEED, ITERATIONS = "mask_rcnn", 0, 2400
PREFIX = "backbone.bottom_up."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args = parse_options(parser)
    start(args)
    path = pretrained_weights(args.output)
    trainer = train(ROW, SEED, ITERATIONS, path.parent, weights=None)
    weights = trainer.model.state_dict()
    torch.save({"model": {k: v for k, v in weights.items() if k.startswith(PREFIX)}}, path)
    points, seconds = curve(path.parent, ITERATIONS)
    write_record(
        RECORDS / "pretraining.json",
        {
            "row": ROW,
            "seed": SEED,
            "iterations": ITERATIONS,
            "backbone": identity(path),
            "median_seconds_of_an_iteration": round(seconds, 4),
            "curve": points,
        },
    )


if __name__ == "__main__":
    main()
