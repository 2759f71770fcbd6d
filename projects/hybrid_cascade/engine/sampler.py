"""Continue a training with the images that would have come next."""

import itertools
from collections.abc import Iterator

from detectron2.data.samplers import TrainingSampler


class ResumableTrainingSampler(TrainingSampler):
    """`TrainingSampler` that can leave out what a run has consumed before it was resumed.

    Attributes:
        first: index of the first sample of this process to yield; set before iterating.
    """

    first = 0

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(super().__iter__(), self.first, None)
