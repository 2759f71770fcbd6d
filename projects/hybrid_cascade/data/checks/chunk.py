"""Annotations of many images, which are checked together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .report import Kind, Report


@dataclass
class Chunk:
    """Some annotations of a dataset.

    Attributes:
        annotations: N dicts, of COCO's or of Detectron2's format.
        sizes: (N, 2) width and height, in pixels, of the image of each; NaN where it is not known.
        place_of: returns the name of an annotation by its index, such as "annotation 3 of image
            'a.jpg'".
        report: gets the faults.
    """

    annotations: list[dict]
    sizes: np.ndarray
    place_of: Callable[[int], str]
    report: Report

    def add(self, kind: Kind, index: int, what: str) -> None:
        """Report a fault of an annotation; `what` it has comes after its name."""
        self.report.add(kind, f"{self.place_of(index)} {what}")

    def add_where(self, kind: Kind, found: np.ndarray, what: Callable[[int], str]) -> None:
        """Report a fault of all annotations where `found`, (N,) bool, is True."""
        for index in np.flatnonzero(found).tolist():
            self.add(kind, index, what(index))


def split(items: Sequence, size: int) -> Iterator[Sequence]:
    """Yield the items in parts of the size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
