"""Sizes of the views of an image."""

from collections.abc import Sequence


def size_limits(short_sides: Sequence[int], max_size: int | Sequence[int]) -> list[int]:
    """Return the bound of the longer side, in pixels, of the view of each short side.

    Args:
        short_sides: lengths that the shorter side is resized to.
        max_size: one bound for all views, or one for each.

    Raises:
        ValueError: if there is not one bound for each short side.
    """
    if isinstance(max_size, int):
        return [max_size] * len(short_sides)
    limits = list(max_size)
    if len(limits) != len(short_sides):
        raise ValueError(
            f"max_size={limits} does not have a bound for each of short_sides={list(short_sides)}. "
            "Give as many, or one number for all"
        )
    return limits
