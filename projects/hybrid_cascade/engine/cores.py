"""How many cores a process may use."""

import os
from pathlib import Path

import torch


def share_cores(num_processes: int) -> None:
    """Give each process of a machine an equal share of the cores, as its number of threads.

    torchrun would give it one, and torch all, those that a container may not use included. An
    `OMP_NUM_THREADS` that the user sets is obeyed instead.
    """
    if not threads_are_set():
        torch.set_num_threads(max(1, available_cores() // num_processes))


def threads_are_set() -> bool:
    """Tell whether the user has set `OMP_NUM_THREADS`, rather than torchrun, which sets it to 1."""
    value = os.environ.get("OMP_NUM_THREADS")
    if not value:
        return False
    if value != "1" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    try:  # the environment that torchrun itself was started with
        environment = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return False
    return any(line.startswith(b"OMP_NUM_THREADS=") for line in environment.split(b"\0"))


def available_cores(root: str | os.PathLike = "/") -> int:
    """Return the number of cores that this process may use: by its affinity and its CPU quota.

    Args:
        root: the folder that has proc/ and sys/.

    Returns:
        At least 1. A quota of 2.5 cores counts as 2.
    """
    return max(1, int(min([len(os.sched_getaffinity(0)), *_cpu_quotas(Path(root))])))


def _cpu_quotas(root: Path) -> list[float]:
    """Return the CPU quotas, in cores, of the control groups (1 and 2) that a process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []  # not Linux
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for name in {controllers, "cpu"} if controllers else {"", "unified"}:
            top = root / "sys/fs/cgroup" / name
            # Its own group and those above. In a container, the path may be that of the host.
            for group in [top / path.strip("/"), *(top / path.strip("/")).parents]:
                if group.is_relative_to(top):
                    quotas += _cpu_quota(group)
    return quotas


def _cpu_quota(group: Path) -> list[float]:
    """Return the quota of a control group, or []."""
    try:
        if (group / "cpu.max").exists():  # version 2: "150000 100000" or "max 100000"
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()  # -1: none
            period = (group / "cpu.cfs_period_us").read_text()
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):
        return []
