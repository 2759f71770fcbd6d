"""Checks of the arguments that operators share. Limits are stated in the operators' docstrings."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(**tensors: Tensor) -> None:
    """Check that all arguments are dense tensors on one device.

    Raises:
        TypeError: for anything but a dense tensor; names the argument.
        ValueError: for tensors on several devices; names two of them.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.layout is not torch.strided:
            raise TypeError(f"{name} must be dense, got {tensor.layout}: use {name}.to_dense()")
    (first, expected), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != expected.device:
            raise ValueError(f"{first} is on {expected.device}, {name} is on {tensor.device}")


def check_pair(name: str, pair: Sequence[int], least: int, most: int | None = None) -> None:
    """Check two whole numbers, such as a height and a width.

    Raises:
        TypeError: for other types; names the argument and its value.
        ValueError: if there are not two, or one is below `least` or above `most`.
    """
    is_pair = isinstance(pair, Sequence) and len(pair) == 2
    if not is_pair or not all(isinstance(n, int | torch.SymInt) for n in pair):
        raise TypeError(f"{name} must be whole numbers, one for each axis, got {pair!r}")
    if min(pair) < least or (most is not None and max(pair) > most):
        limits = f"{least} or more" if most is None else f"in [{least}, {most}]"
        raise ValueError(f"{name} must be {limits}, got {tuple(pair)}")


def check_positive(name: str, number: float) -> None:
    """Check a positive, finite number.

    Raises:
        TypeError: for another type; names the argument and its value.
        ValueError: if it is not positive, infinite, or NaN.
    """
    if not isinstance(number, int | float):
        raise TypeError(f"{name} must be a number, got {number!r}")
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be positive and finite, got {number}")


def check_in_unit_interval(name: str, number: float) -> None:
    """Check a number in [0, 1].

    Raises:
        ValueError: if it is outside, or NaN; names the argument and its value.
    """
    if not 0 <= number <= 1:
        raise ValueError(f"{name}={number} is not in [0, 1]")
