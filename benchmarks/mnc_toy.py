#!/usr/bin/env python
"""MNC on the toy scenes: trained through its boxes or not, with fewer stages, without mask voting.

    benchmarks/mnc_toy.py --seeds 1 2

trains configs/quick_start/mnc_toy.py with `end_to_end` on and off (half an hour on two CPU cores),
evaluates each as it is, after stage 3, and with NMS in place of voting, prints a Markdown table,
and writes benchmarks/results/mnc_toy.json. Complete runs are not repeated.
"""

import argparse
from pathlib import Path

from record import RESULTS, ROOT, write_record
from train_net_run import format_aps, run_train_net

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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    rows = []
    for end_to_end in (True, False):
        for seed in args.seeds:
            folder = args.output / f"end_to_end_{end_to_end}_{seed}"
            training = [f"train.seed={seed}", f"model.roi_heads.end_to_end={end_to_end}"]
            run_train_net("mnc_toy", folder, *training, "train.num_panels=0")
            weights = f"train.init_checkpoint={folder / 'model_final.pth'}"
            for name, overrides in INFERENCE.items():
                result = run_train_net(
                    "mnc_toy",
                    folder / name.replace(",", "").replace(" ", "_"),
                    "--eval-only",
                    weights,
                    "train.num_panels=0",
                    *overrides,
                )
                rows.append({"end_to_end": end_to_end, "seed": seed, "inference": name, **result})
    print("| trained | seed | inference | box AP | mask AP |\n|---|---|---|---|---|")
    for row in rows:
        trained = "end to end" if row["end_to_end"] else "detached boxes"
        print(f"| {trained} | {row['seed']} | {row['inference']} | {format_aps([row])} |")
    write_record(RESULTS / "mnc_toy.json", {"rows": rows})


if __name__ == "__main__":
    main()
