"""The record of a benchmark: its figures, and where they come from, as JSON."""

import json
import platform
import re
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def write_record(path: Path, figures: dict, device: str = "cpu") -> None:
    """Write figures, after the machine, torch and its threads, and the commit of this checkout.

    Args:
        path: of the JSON file; its folder is made if it is not there.
        figures: what JSON can hold.
        device: "cpu" or "cuda", of which the figures are.
    """
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()
    origin = {"machine": machine_name(device), "torch": torch.__version__}
    origin |= {"threads": torch.get_num_threads(), "commit": commit}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**origin, **figures}, indent=1)
    # Lists of numbers in one line.
    text = re.sub(r"\[[^][{}\"]+\]", lambda found: " ".join(found[0].split()), text)
    path.write_text(text + "\n")
    print(f"wrote {path}")


def file_name(title: str, device: str) -> str:
    """Return the name of a record without its ending: a title, the device and, of a CPU, its name.

    Args:
        title: such as "models".
        device: "cpu" or "cuda".
    """
    if device != "cpu":
        return f"{title}_{device}"
    name = re.sub(r"\(\w+\)|processor|cpu", "", machine_name(device), flags=re.IGNORECASE)
    return "_".join([title, device, *re.findall(r"[a-z0-9]+", name.lower())])


def machine_name(device: str) -> str:
    """Return the name of the GPU, or of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if device == "cuda":
        return torch.cuda.get_device_name()
    if cpuinfo.exists() and (name := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        return name[1]
    return platform.machine()
