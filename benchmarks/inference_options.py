#!/usr/bin/env python
"""The toy HTC with options of inference (views, soft-NMS, checkpoints): box and mask AP.

    benchmarks/inference_options.py --weights a/model_final.pth b/model_final.pth

runs `train_net.py --config-file configs/quick_start/htc_toy.py --eval-only` with the options of
docs/test_time.md, on the first model, with the second one as a further checkpoint, and the other
way round. Prints a Markdown table; writes benchmarks/results/inference_options.json. Two models:

    benchmarks/quick_start.py --models htc --seeds 1 2 --results output/htc.json

leaves them in output/quick_start_table/htc_1 and htc_2. Complete runs are not repeated.
"""

import argparse
from pathlib import Path

from record import RESULTS, ROOT, write_record
from train_net_run import format_aps, run_train_net

SIZES = ["train.test_time.short_sides=[96,128,160]", "train.test_time.flip=True"]
OTHER = "train.test_time.checkpoints=[{other}]"
OPTIONS = {
    "before": [],
    "mirrored views": ["train.test_time.flip=True"],
    "three sizes, mirrored": SIZES,
    "soft-NMS, linear": ["model.roi_heads.soft_nms=linear"],
    "soft-NMS, Gaussian": ["model.roi_heads.soft_nms=gaussian"],
    "two checkpoints": [OTHER],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, nargs=2, required=True)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "inference_options")
    args = parser.parse_args()
    first, second = (path.resolve() for path in args.weights)
    rows = {}
    for number, (name, options) in enumerate(OPTIONS.items()):
        rows[name] = [
            run_train_net(
                "htc_toy",
                args.output / f"{number}_{index}",
                "--eval-only",
                f"train.init_checkpoint={weights}",
                "train.num_panels=0",
                *(option.format(other=other) for option in options),
            )
            for index, (weights, other) in enumerate([(first, second), (second, first)])
        ]
    print("| | box AP | mask AP |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {format_aps(row)} |")
    write_record(RESULTS / "inference_options.json", {"rows": rows})


if __name__ == "__main__":
    main()
