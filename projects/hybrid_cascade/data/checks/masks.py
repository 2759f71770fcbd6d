"""Polygons and run lengths that crash, hang or vanish later."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .boxes import TOLERANCE_FRACTION, TOLERANCE_PIXELS, size_of
from .chunk import Chunk
from .numbers import flatten, is_integer, short
from .report import Kind, Level

FAR = 10.0  # images: polygons that reach further than this take too long, or too much memory

NO_MASK = Kind(
    "annotations without a mask in a dataset to evaluate masks on",
    "Add `segmentation`, or evaluate a model without masks.",
)
WRONG_TYPE = Kind(
    "masks that are neither polygons nor run lengths",
    "`segmentation` is a list of polygons, [[x0, y0, x1, y1, ...], ...] of numbers, or a dict with "
    "`size` and `counts`. Correct them, or remove `segmentation`.",
)
TOO_FEW = Kind(
    "polygons of too few or an odd number of values",
    "A polygon is [x0, y0, x1, y1, ...] of at least three points; fix or remove it. Instances "
    "without another polygon are dropped silently.",
    Level.FREQUENT,
)
NOT_FINITE = Kind("polygons with NaN or infinity", "Correct or remove them.")
TOO_FAR = Kind("polygons far out of their image", "Correct them: coordinates are pixels.")
OUTSIDE = Kind(
    "polygons that reach out of their image",
    "Correct them, or the image's `width` and `height`.",
    Level.FREQUENT,
)
NORMALISED = Kind(
    "polygons with coordinates from 0 to 1",
    "Coordinates are pixels: multiply those that are fractions by the image's width and height.",
    Level.FREQUENT,
)
NO_AREA = Kind("polygons without area", "Correct or remove them.", Level.FREQUENT)
RUN_SIZE = Kind(
    "masks (RLE) of another size than their image",
    "`size` of a `segmentation` is [height, width]. Encode the mask at the image's size.",
)
RUN_LENGTHS = Kind(
    "masks (RLE) with wrong run lengths",
    "`counts` are the lengths of the runs of 0 and 1, down the columns; they are at least 0, and "
    "their sum is height times width. Encode these masks again, or remove them.",
)
EMPTY = Kind(
    "masks (RLE) without a pixel",
    "The instances are dropped silently. Correct or remove them.",
    Level.FREQUENT,
)


def check_masks(chunk: Chunk, *, needed: bool) -> np.ndarray:
    """Report faults of "segmentation".

    Args:
        chunk: the annotations.
        needed: all annotations must have a mask, as for COCO's evaluation.

    Returns:
        (N, 4) [x1, y1, x2, y2] around the mask of each annotation; NaN if it has none.
    """
    polygons, owners, run_lengths = [], [], []
    for index, annotation in enumerate(chunk.annotations):
        mask = annotation.get("segmentation")
        if isinstance(mask, dict):
            run_lengths.append(index)
        elif isinstance(mask, list) and mask:
            polygons.extend(mask)
            owners.extend([index] * len(mask))
        elif mask is not None and not isinstance(mask, list):
            chunk.add(WRONG_TYPE, index, f"has the `segmentation` {short(mask)}")
        elif needed:
            chunk.add(NO_MASK, index, "has no `segmentation`")
    extents = _check_polygons(chunk, polygons, np.array(owners, np.int64))
    for index in run_lengths:
        runs, height = _check_run_lengths(chunk, index, chunk.annotations[index]["segmentation"])
        if any(runs[1::2]):
            extents[index] = _extent(runs, height)
    return extents


def _check_polygons(chunk: Chunk, polygons: list[Any], owners: np.ndarray) -> np.ndarray:
    extents = np.full((len(chunk.annotations), 4), np.nan)

    def add(kind: Kind, found: np.ndarray, what: Callable[[int], str]) -> None:
        for index in np.flatnonzero(found).tolist():
            chunk.add(kind, owners[index], what(index))

    values, lengths, wrong = flatten(polygons)
    is_wrong = np.zeros(len(polygons), bool)
    is_wrong[wrong] = True
    add(WRONG_TYPE, is_wrong, lambda i: f"has {short(polygons[i])} in its `segmentation`")
    add(
        TOO_FEW,
        ~is_wrong & ((lengths < 6) | (lengths % 2 == 1)),
        lambda i: f"has a polygon of {lengths[i]} numbers in its `segmentation`",
    )
    kept = np.flatnonzero((lengths >= 6) & (lengths % 2 == 0))
    if not len(kept):
        return extents
    # The values of the polygons that are left, as points, and where each polygon begins.
    points = values[np.repeat((lengths >= 6) & (lengths % 2 == 0), lengths)].reshape(-1, 2)
    starts = np.r_[0, np.cumsum(lengths[kept] // 2)[:-1]]
    low = np.minimum.reduceat(points, starts)  # NaN if a point is NaN
    high = np.maximum.reduceat(points, starts)
    owners, polygons = owners[kept], [polygons[i] for i in kept]
    sizes = chunk.sizes[owners]
    is_finite = np.isfinite(low).all(1) & np.isfinite(high).all(1)
    # Of an image whose size is not known, any is as large as the largest.
    far = FAR * np.where(np.isnan(sizes), 1e5, np.maximum(sizes, 100))
    is_far = is_finite & ((low < -far) | (high > far)).any(1)
    good = is_finite & ~is_far
    is_normalised = good & (low >= 0).all(1) & (high <= 1).all(1) & (sizes > 4).all(1)
    good &= ~is_normalised
    has_no_area = good & (low == high).any(1)
    good &= ~has_no_area
    margin = np.maximum(TOLERANCE_PIXELS, TOLERANCE_FRACTION * sizes)
    is_outside = good & ((low < -margin) | (high > sizes + margin)).any(1)
    for kind, found in (
        (NOT_FINITE, ~is_finite),
        (TOO_FAR, is_far),
        (NORMALISED, is_normalised),
        (NO_AREA, has_no_area),
        (OUTSIDE, is_outside),
    ):
        add(
            kind,
            found,
            lambda i: f"has the polygon {short(polygons[i])} in {size_of(chunk, owners[i])}",
        )
    with np.errstate(invalid="ignore"):
        extents[owners[good], :2], extents[owners[good], 2:] = np.inf, -np.inf
        np.minimum.at(extents[:, :2], owners[good], low[good])
        np.maximum.at(extents[:, 2:], owners[good], high[good])
    extents[owners[~good]] = np.nan
    return extents


def _check_run_lengths(chunk: Chunk, index: int, mask: dict) -> tuple[Sequence[int], int]:
    """Return the run lengths and the height of a mask; [] if they are wrong."""
    size, counts = mask.get("size"), mask.get("counts")
    is_size = (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(is_integer(x) and 0 < x < 2**31 for x in size)
    )
    if not is_size or counts is None:
        what = f"has a `segmentation` (RLE) with `size` {short(size)}, `counts` {short(counts)}"
        chunk.add(WRONG_TYPE, index, what)
        return [], 0
    height, width = map(int, size)
    expected = chunk.sizes[index]
    if not np.isnan(expected).any() and (width, height) != tuple(expected):
        chunk.add(
            RUN_SIZE,
            index,
            f"has a `segmentation` (RLE) of `size` {[height, width]}, but the image's [height, "
            f"width] is [{expected[1]:g}, {expected[0]:g}]",
        )
    runs, obstacle = _decode(counts, height * width)
    if obstacle:
        what = f"has a `segmentation` (RLE) of `size` {[height, width]} whose `counts` {obstacle}"
        chunk.add(RUN_LENGTHS, index, what)
    elif not any(runs[1::2]):
        chunk.add(EMPTY, index, f"has the `counts` {short(counts)}")
    return runs, height


def _decode(counts: Any, num_pixels: int) -> tuple[Sequence[int], str]:
    """Return the run lengths, and what is wrong with them; [] and the fault, or they and ""."""
    if isinstance(counts, str | bytes):
        runs = decode_run_lengths(counts)
        if runs is None:
            return [], f"{short(counts)} can't be decoded"
    elif isinstance(counts, list | tuple):
        if not all(map(is_integer, counts)):
            return [], f"{short(counts)} are not all integers"
        runs = counts
    else:
        return [], f"are {short(counts)}"
    if len(runs) and min(runs) < 0:
        return [], f"have the run {min(runs)}"
    total = int(sum(runs))
    return (runs, "") if total == num_pixels else ([], f"sum to {total} instead of {num_pixels}")


def _extent(runs: Sequence[int], height: int) -> tuple[int, int, int, int]:
    """Return [x1, y1, x2, y2] around the runs of 1, of which there is one that is not empty."""
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1  # pixel of each run
    first, last = first[first <= last], last[first <= last]
    rows = (first % height).min(), (last % height).max() + 1
    if (first // height != last // height).any():  # from one column to the next
        rows = 0, height
    return first[0] // height, rows[0], last[-1] // height + 1, rows[1]


def decode_run_lengths(counts: str | bytes) -> list[int] | None:
    """Return the run lengths of a compressed mask (COCO's format); None if it is corrupt.

    A number is written as characters of 5 bits each, lowest first, of which all but the last have a
    sixth bit. From the fourth number on, it is the difference to the run before the last one.
    """
    try:
        data = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        return None
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return []
    is_last = (codes & 32) == 0
    if codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        return None
    starts = np.r_[0, np.flatnonzero(is_last)[:-1] + 1]
    lengths = np.diff(np.r_[starts, len(codes)])
    if lengths.max() > 7:
        return None
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= np.where(codes[is_last] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs.tolist()
