"""Runs of train_net.py on the toy scenes, which are not repeated once they are complete."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from record import ROOT


def quick_start_config(name: str) -> str:
    """Return the path of the file of configs/quick_start with this name."""
    return str(ROOT / "configs" / "quick_start" / f"{name}.py")


def format_aps(runs: Iterable[Mapping[str, float]]) -> str:
    """Return two cells of a Markdown table, box AP and mask AP, of what `run_train_net` returned.

    The APs of several runs stand in one cell.
    """
    runs = list(runs)
    return " | ".join(
        " / ".join(f"{run[task]:.1f}" for run in runs if task in run) for task in ("bbox", "segm")
    )


def run_train_net(config: str, folder: Path, *options: str) -> dict[str, float]:
    """Train, or evaluate if the first option is "--eval-only".

    Args:
        config: the name of a file in configs/quick_start, without its suffix.
        folder: for what the run writes. If its results are there, they are returned at once.
        options: further arguments of train_net.py.

    Returns:
        AP in percent, of "bbox" and, with masks, of "segm".
    """
    results = folder / "results.json"
    if not results.exists():
        command = [sys.executable, str(ROOT / "train_net.py")]
        # A training that was interrupted goes on.
        command += [] if options[:1] == ("--eval-only",) else ["--resume"]
        command += ["--config-file", quick_start_config(config), *options]
        subprocess.run([*command, f"train.output_dir={folder}"], check=True)
    metrics = json.loads(results.read_text())
    return {task: metrics[task]["AP"] for task in metrics}
