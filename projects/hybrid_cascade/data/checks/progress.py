"""The progress line of checks that take long."""

from collections.abc import Iterable

from detectron2.utils import comm
from tqdm import tqdm


def progress(what: str, total: int, items: Iterable | None = None) -> tqdm:
    """Return tqdm's progress line, in the main process and after three seconds.

    Args:
        what: is checked.
        total: the number of items.
        items: to iterate over; None if the line is updated by hand.
    """
    return tqdm(
        items,
        desc=f"Checking {what}",
        total=total,
        delay=3,
        leave=False,
        disable=not comm.is_main_process(),
    )
