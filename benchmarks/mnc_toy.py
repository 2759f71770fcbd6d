#!/usr/bin/env python
"""MNC on the toy scenes: trained through its boxes or not, with fewer stages, without mask voting.

    benchmarks/mnc_toy.py --seeds 1 2

trains configs/quick_start/mnc_toy.py with `end_to_end` on and off (half an hour on two CPU cores),
evaluates each as it is, after stage 3, and with NMS in place of voting, prints a Markdown table,
and writes benchmarks/results/mnc_toy.json. Complete runs are not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from provenance import provenance

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "configs" / "quick_start" / "mnc_toy.py")
INFERENCE = {
    "5 stages, voting": [],
    "3 stages, voting": ["model.roi_heads.test_stages=3"],
    "5 stages, NMS 0.5": ["model.roi_heads.test_output=nms"],
    "5 stages, NMS 0.3": [
        "model.roi_heads.test_output=nms",
        "model.roi_heads.predictor.test_nms_thresh=0.3",
    ],
}


def run(folder: Path, *overrides: str) -> dict[str, float]:
    """Train or evaluate unless it has been done; box and mask AP."""
    results = folder / "results.json"
    if not results.exists():
        command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", CONFIG]
        output = [f"train.output_dir={folder}", "train.num_panels=0"]
        subprocess.run([*command, *overrides, *output], check=True)
    metrics = json.loads(results.read_text())
    return {task: metrics[task]["AP"] for task in ("bbox", "segm")}


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
            run(folder, f"train.seed={seed}", f"model.roi_heads.end_to_end={end_to_end}")
            weights = f"train.init_checkpoint={folder / 'model_final.pth'}"
            for name, overrides in INFERENCE.items():
                result = run(
                    folder / name.replace(",", "").replace(" ", "_"),
                    "--eval-only",
                    weights,
                    *overrides,
                )
                rows.append({"end_to_end": end_to_end, "seed": seed, "inference": name, **result})
    print("| trained | seed | inference | box AP | mask AP |\n|---|---|---|---|---|")
    for row in rows:
        trained = "end to end" if row["end_to_end"] else "detached boxes"
        aps = f"{row['bbox']:.1f} | {row['segm']:.1f}"
        print(f"| {trained} | {row['seed']} | {row['inference']} | {aps} |")
    path = ROOT / "benchmarks" / "results" / "mnc_toy.json"
    path.write_text(json.dumps({**provenance(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
