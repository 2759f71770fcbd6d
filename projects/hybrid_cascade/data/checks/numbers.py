"""Lists of numbers of any kind, as arrays."""

import math
from collections.abc import Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any

import numpy as np


def is_integer(value: Any) -> bool:
    """Tell whether a value is an integer of Python or NumPy, and no bool."""
    # The first is the fast way for nearly all.
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def is_id(value: Any) -> bool:
    """Tell whether a value is an integer that COCO's evaluation, which uses floats, can hold."""
    return is_integer(value) and abs(value) < 2**53


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite real number of Python or NumPy, and no bool."""
    if type(value) not in (int, float) and not _is_real_type(type(value)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_real_type(kind: type) -> bool:
    return issubclass(kind, Real) and kind is not bool


def flatten(rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Put rows of numbers into one array.

    Returns:
        values: (V,) float64, of all rows, in their order. NaN and infinities may be among them.
        lengths: (R,) how many are of each row; 0 of rows that are not lists of numbers.
        wrong: the indices of these rows.
    """
    wrong: list[int] = []
    try:
        return *_flatten(rows), wrong
    except (TypeError, ValueError, OverflowError):
        rows = list(rows)
    for index, row in enumerate(rows):
        try:
            if isinstance(row, str | bytes | dict | set):
                raise TypeError
            _flatten([row])
        except (TypeError, ValueError, OverflowError):
            rows[index] = ()
            wrong.append(index)
    return *_flatten(rows), wrong


def _flatten(rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    values = list(chain.from_iterable(rows))
    if not all(map(_is_real_type, set(map(type, values)))):
        raise TypeError("not numbers")
    return np.array(values, np.float64).reshape(-1), lengths


def short(value: Any) -> str:
    """Return the value as in Python, shortened."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"an integer of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:77]}..."
