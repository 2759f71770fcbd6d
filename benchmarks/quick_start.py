#!/usr/bin/env python
"""Compare the models of configs/quick_start on the toy scenes: same budget, several seeds.

    benchmarks/quick_start.py --output output/quick_start_table --max-iter 400 --seeds 1 2

trains one after the other (half an hour on two CPU cores), prints a Markdown table, and writes
it as JSON to benchmarks/results/quick_start.json. Complete runs are not repeated. Other models:

    benchmarks/quick_start.py --models faster_rcnn faster_rcnn_sfpn --results output/sfpn.json
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from provenance import provenance

ROOT = Path(__file__).parent.parent
MODELS = {
    "mask_rcnn": "Mask R-CNN",
    "cascade_mask_rcnn": "Cascade Mask R-CNN",
    "htc_without_semantic": "HTC without semantic",
    "htc": "HTC",
    "faster_rcnn": "Faster R-CNN",
    "faster_rcnn_sfpn": "Faster R-CNN, SFPN",
    "faster_rcnn_sfpn_from_boxes": "Faster R-CNN, SFPN from boxes alone",
    "mask_rcnn_sfpn": "Mask R-CNN, SFPN",
    "cascade_mask_rcnn_sfpn": "Cascade Mask R-CNN, SFPN",
    "htc_sfpn": "HTC, SFPN",
    "mnc": "MNC",
    "ssd": "SSD",
}
DEFAULT_MODELS = ["mask_rcnn", "cascade_mask_rcnn", "htc_without_semantic", "htc"]


def train(model: str, seed: int, max_iter: int, folder: Path) -> dict:
    """Train one model unless its folder has a result.

    Returns:
        "bbox" AP, "segm" AP if the model has masks, and the median "seconds" of an iteration.
    """
    if not (folder / "results.json").exists():
        subprocess.run(
            [
                *(sys.executable, str(ROOT / "train_net.py")),
                *("--config-file", str(ROOT / "configs" / "quick_start" / f"{model}_toy.py")),
                *(f"train.seed={seed}", f"train.max_iter={max_iter}"),
                f"train.output_dir={folder}",
            ],
            check=True,
        )
    results = json.loads((folder / "results.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    seconds = statistics.median(line["time"] for line in lines if "time" in line)
    return {**{task: results[task]["AP"] for task in results}, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "quick_start_table")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=DEFAULT_MODELS)
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results" / "quick_start.json"
    )
    parser.add_argument("--max-iter", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    runs = {
        model: [train(model, s, args.max_iter, args.output / f"{model}_{s}") for s in args.seeds]
        for model in args.models
    }
    print("| model | box AP | mask AP | s / iteration |\n|---|---|---|---|")
    for model in args.models:
        row = [
            " / ".join(f"{r[task]:.1f}" for r in runs[model] if task in r)
            for task in ("bbox", "segm")
        ]
        seconds = statistics.median(r["seconds"] for r in runs[model])
        print(f"| {MODELS[model]} | {row[0]} | {row[1]} | {seconds:.2f} |")
    report = {
        **provenance(),
        "max_iter": args.max_iter,
        "seeds": args.seeds,
        "runs": runs,
    }
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
