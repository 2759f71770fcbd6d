"""Continue a training with the images that would have come next."""

import itertools
from collections.abc import Iterator

from detectron2.data.samplers import TrainingSampler


class ResumableTrainingSampler(TrainingSampler):
    """`TrainingSampler` that can skip the samples that a run saw before it was interrupted.

    Attributes:
        first: index of the first sample of this process to yield; set before iterating.
    """

    first = 0

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(super().__iter__(), self.first, None)
