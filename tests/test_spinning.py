"""How long the threads of a command spin, by what OpenMP itself says when torch loads it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybrid_cascade.spinning import SPINS

ROOT = Path(__file__).parents[1]
OPENMP = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
COMMANDS = {
    "train_net": (str(ROOT / "train_net.py"), "--help"),
    "module": ("-m", "hybrid_cascade", "predict", "--help"),
    "torchrun": (*TORCHRUN, str(ROOT / "train_net.py"), "--help"),
    "torchrun_module": (*TORCHRUN, "-m", "hybrid_cascade", "train", "--help"),
}

pytestmark = pytest.mark.skipif(not OPENMP.exists(), reason="another OpenMP than GNU's")


def spins_of(*arguments: str, **variables: str) -> str:
    """Start Python; return how often its threads spin, of the last process that loads OpenMP."""
    choices = ("OMP_", "GOMP_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(choices)}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **variables}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_threads_of_a_command_sleep_soon(command):
    assert spins_of(*COMMANDS[command]) == SPINS


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_what_the_environment_says_is_kept(variables, expected):
    assert spins_of(*COMMANDS["train_net"], **variables) == expected


def test_the_environment_is_left_alone_where_torch_is_there_before():
    script = "import torch, os, hybrid_cascade; assert 'GOMP_SPINCOUNT' not in os.environ"
    assert spins_of("-c", script) != SPINS
