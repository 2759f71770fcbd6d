import os

import pytest
import torch

from hybrid_cascade.engine import cores


def make_groups(root, cgroup, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def version_1(folder, quota):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


V1 = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"


@pytest.mark.parametrize(
    "cgroup, files, expected",
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        (V1, version_1("cpu,cpuacct", 400_000), 4),
        (V1, version_1("cpu/docker/abc", 600_000), 6),
        (V1, version_1("cpu", -1), 8),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(cgroup, files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    make_groups(tmp_path, cgroup, files)
    assert cores.available_cores(tmp_path) == expected


def test_without_control_groups_the_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5))
    assert cores.available_cores(tmp_path) == 5


@pytest.fixture
def threads(monkeypatch):
    """The numbers that `share_cores` sets, on a machine of 8 cores."""
    numbers = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return numbers


def test_processes_share_the_cores(threads):
    for processes in (1, 3, 16):
        cores.share_cores(processes)
    assert threads == [8, 2, 1]


def test_the_number_of_threads_that_a_user_sets_is_obeyed(threads, monkeypatch):
    for number in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        cores.share_cores(2)
    assert threads == []


def test_that_of_torchrun_is_not_unless_the_user_set_it_for_torchrun(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(cores.Path, "read_bytes", lambda _: b"HOME=/root\0PATH=/bin\0")
    cores.share_cores(2)
    assert threads == [4]
    monkeypatch.setattr(cores.Path, "read_bytes", lambda _: b"HOME=/root\0OMP_NUM_THREADS=1\0")
    cores.share_cores(2)
    assert threads == [4]
