"""A run of train_net.py, which is not repeated once it is complete."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def quick_start_config(name: str) -> str:
    """The file of configs/quick_start with this name."""
    return str(ROOT / "configs" / "quick_start" / f"{name}.py")


def run_train_net(config: str, folder: Path, *options: str) -> dict[str, float]:
    """Train, or evaluate if the first option is "--eval-only".

    Args:
        config: the name of a file in configs/quick_start, without its suffix.
        folder: for what the run writes. If its results are there, they are returned at once.
        options: further arguments of train_net.py.

    Returns:
        AP of "bbox" and, with masks, of "segm".
    """
    results = folder / "results.json"
    if not results.exists():
        command = [sys.executable, str(ROOT / "train_net.py")]
        command += ["--config-file", quick_start_config(config), *options]
        subprocess.run([*command, f"train.output_dir={folder}"], check=True)
    metrics = json.loads(results.read_text())
    return {task: metrics[task]["AP"] for task in metrics}
