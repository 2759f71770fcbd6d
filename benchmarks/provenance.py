"""Where a benchmark's results come from."""

import platform
import re
import subprocess
from pathlib import Path

import torch


def provenance(device: str = "cpu") -> dict[str, str | int]:
    """The machine, torch and its threads, and the commit, as keys of a results file."""
    cpuinfo = Path("/proc/cpuinfo")
    if device == "cuda":
        machine = torch.cuda.get_device_name()
    elif cpuinfo.exists() and (name := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        machine = name[1]
    else:
        machine = platform.machine()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    threads = torch.get_num_threads()
    return {"machine": machine, "torch": torch.__version__, "threads": threads, "commit": commit}
