"""The cases of operators.py on the CUDA kernels, by emulation (tests/layers/emulated_cuda)."""

import random
from dataclasses import replace
from pathlib import Path

from tests.layers import emulated_cuda

from .case import Case
from .operators import make_compiled_case


def make_case(random: random.Random) -> Case:
    """Return a case."""
    case = make_compiled_case(random)

    def check(folder: Path) -> None:
        emulated_cuda.load()
        with emulated_cuda.in_place_of_cpu_kernels():
            case.check(folder)

    # Whatever the fault is, a box of an image that is not there is an assertion of the device.
    names = case.names and f"{case.names}|image index out of range"
    return replace(case, name=f"cuda_{case.name}", check=check, names=names)
