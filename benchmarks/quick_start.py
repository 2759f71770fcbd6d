#!/usr/bin/env python
"""Compare the models of configs/quick_start on the toy scenes: same budget, several seeds.

    benchmarks/quick_start.py --output output/quick_start_table --max-iter 400 --seeds 1 2

trains one after the other (forty minutes on two CPU cores), prints a Markdown table, and writes
it as JSON to benchmarks/results/quick_start.json. Complete runs are not repeated. The seconds are
those of an iteration with the trained weights, always on the same images, median of seven; the
models run in turn, so that a busy machine slows all of them. Other models:

    benchmarks/quick_start.py --models htc htc_sfpn mnc --results output/more.json
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

from detectron2.config import instantiate
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from record import RESULTS, ROOT, write_record
from timing import TrainingStep, interleaved, seconds_of
from train_net_run import format_aps, quick_start_config, run_train_net

from hybrid_cascade.engine import build_model, load_config, load_weights

MODELS = {
    "ssd": "SSD",
    "faster_rcnn": "Faster R-CNN",
    "faster_rcnn_sfpn": "Faster R-CNN, SFPN",
    "mask_rcnn": "Mask R-CNN",
    "mask_rcnn_sfpn": "Mask R-CNN, SFPN",
    "cascade_mask_rcnn": "Cascade Mask R-CNN",
    "cascade_mask_rcnn_sfpn": "Cascade Mask R-CNN, SFPN",
    "htc_without_semantic": "HTC without semantic branch",
    "htc": "HTC",
}
MORE_MODELS = {
    "faster_rcnn_sfpn_from_boxes": "Faster R-CNN, SFPN from boxes alone",
    "htc_sfpn": "HTC, SFPN",
    "mnc": "MNC",
}
ROUNDS = 7


def training_step(config: DictConfig, weights: Path) -> TrainingStep:
    """Return an iteration with these weights, on the first images of the dataset."""
    detector = build_model(config).train()
    load_weights(detector, str(weights))
    seed_all_rng(0)
    loader = config.dataloader.train
    mapper = instantiate(loader.mapper)
    batch = [mapper(x) for x in instantiate(loader.dataset)[: loader.total_batch_size]]
    config.optimizer.params.model = detector

    def losses():
        with EventStorage():
            return detector(batch)

    return TrainingStep(losses, instantiate(config.optimizer), config.train.device)


def time_iterations(trainings: dict[str, tuple[DictConfig, Path]]) -> dict[str, float]:
    """Return the median seconds of an iteration of each model, by its config and weights."""
    steps = {model: training_step(*training) for model, training in trainings.items()}
    runs = {model: partial(seconds_of, step, step.device) for model, step in steps.items()}
    interleaved(runs, 1)  # for warming up
    return {m: statistics.median(rounds) for m, rounds in interleaved(runs, ROUNDS).items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "quick_start_table")
    parser.add_argument("--models", nargs="+", choices=MODELS | MORE_MODELS, default=list(MODELS))
    parser.add_argument("--results", type=Path, default=RESULTS / "quick_start.json")
    parser.add_argument("--max-iter", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    folders = {m: [args.output / f"{m}_{seed}" for seed in args.seeds] for m in args.models}
    runs = {
        model: [
            run_train_net(
                f"{model}_toy", folder, f"train.seed={seed}", f"train.max_iter={args.max_iter}"
            )
            for seed, folder in zip(args.seeds, folders[model], strict=True)
        ]
        for model in args.models
    }
    seconds = time_iterations(
        {
            model: (
                load_config(quick_start_config(f"{model}_toy")),
                folders[model][0] / "model_final.pth",
            )
            for model in args.models
        }
    )
    print("| model | box AP | mask AP | s / iteration |\n|---|---|---|---|")
    for model in args.models:
        title = (MODELS | MORE_MODELS)[model]
        print(f"| {title} | {format_aps(runs[model])} | {seconds[model]:.2f} |")
    figures = {
        "max_iter": args.max_iter,
        "seeds": args.seeds,
        "runs": runs,
        f"median_seconds_of_{ROUNDS}_interleaved_iterations": seconds,
    }
    write_record(args.results, figures)


if __name__ == "__main__":
    main()
