#!/usr/bin/env python
"""MNC on the toy scenes: trained through its boxes or not, with fewer stages, without mask voting.

    benchmarks/mnc_toy.py --seeds 1 2 3

trains configs/quick_start/mnc_toy.py with and without gradients through the boxes (an hour on two
CPU cores) and evaluates each with five stages and mask voting. The default training is also
evaluated after stage 3, with masks that are binarized before they vote, and with NMS in place of
voting. It prints a Markdown table, and writes benchmarks/results/mnc_toy.json. Complete runs are
not repeated.
"""

import argparse
from pathlib import Path

from record import RESULTS, ROOT, write_record
from train_net_run import format_aps, run_train_net

TRAINING = {
    "through positive RoIs": [],
    "detached boxes": ["model.roi_heads.end_to_end=False"],
    "through positive RoIs, no bound": ["model.roi_heads.max_box_gradient=null"],
    "through all RoIs": ["model.roi_heads.box_gradient_rois=all"],
}
INFERENCE = {
    "5 stages, voting": [],
    "3 stages, voting": ["model.roi_heads.test_stages=3"],
    "5 stages, voting with binarized masks": ["model.roi_heads.binarize_before_voting=True"],
    "5 stages, NMS 0.5": ["model.roi_heads.test_output=nms", "model.roi_heads.nms_iou=0.5"],
    "5 stages, NMS 0.3": ["model.roi_heads.test_output=nms"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "mnc_toy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--training", nargs="+", choices=TRAINING, default=list(TRAINING))
    args = parser.parse_args()
    rows = []
    for training in args.training:
        changes = TRAINING[training]
        for inference, overrides in INFERENCE.items():
            if changes and overrides:
                continue
            for seed in args.seeds:
                folder = args.output / f"{_slug(training)}_{seed}"
                run_train_net(
                    "mnc_toy", folder, f"train.seed={seed}", "train.num_panels=0", *changes
                )
                result = run_train_net(
                    "mnc_toy",
                    folder / _slug(inference),
                    "--eval-only",
                    f"train.init_checkpoint={folder / 'model_final.pth'}",
                    "train.num_panels=0",
                    *overrides,
                )
                rows.append({"training": training, "inference": inference, "seed": seed, **result})
    print("| trained | inference | box AP of each seed | mask AP |\n|---|---|---|---|")
    for key in dict.fromkeys((row["training"], row["inference"]) for row in rows):
        of_seeds = [row for row in rows if (row["training"], row["inference"]) == key]
        print(f"| {' | '.join(key)} | {format_aps(of_seeds)} |")
    write_record(RESULTS / "mnc_toy.json", {"rows": rows})


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


if __name__ == "__main__":
    main()
