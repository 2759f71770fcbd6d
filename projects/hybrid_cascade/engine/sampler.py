"""Continue a training with the images that would have come next."""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import get_worker_info


class ResumableTrainingSampler(TrainingSampler):
    """`TrainingSampler` that can skip the samples that a run saw before it was interrupted.

    The batches do not depend on the number of data loading workers.

    Attributes:
        sample: number of the sample that was yielded last in this process; no other sample of the
            training has it, in no process.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        super().__init__(size, shuffle, seed)
        self.sample = 0
        self._batch_size = 1
        self._groups: Sequence[Hashable] | None = None
        self._num_taken, self._waiting = 0, []

    def skip(
        self, batches: int, *, batch_size: int, groups: Sequence[Hashable] | None = None
    ) -> None:
        """Start after some batches; call it before iterating.

        Args:
            batches: number of them, 0 or more.
            batch_size: images of a batch, of this process.
            groups: the group of each image, if batches are made of images of one group, as with
                Detectron2's `aspect_ratio_grouping`; None if they are made as images come.
        """
        self._batch_size, self._groups = batch_size, groups
        self._num_taken, self._waiting = batches * batch_size, []
        if groups is not None:
            self._replay(batches, groups)

    def __iter__(self) -> Iterator[int]:
        samples = itertools.chain(
            self._waiting, itertools.islice(self._all_samples(), self._num_taken, None)
        )
        worker = get_worker_info()
        if self._groups is not None and worker is not None and worker.num_workers > 1:
            samples = self._deal(samples, worker.num_workers)
        for sample, index in samples:
            self.sample = sample
            yield index

    def _all_samples(self) -> Iterator[tuple[int, int]]:
        """Yield number and image of each sample of this process."""
        return zip(itertools.count(self._rank, self._world_size), super().__iter__(), strict=False)

    def _replay(self, batches: int, groups: Sequence[Hashable]) -> None:
        """Find how many samples were taken for some batches, and those that were left over."""
        waiting = defaultdict(list)
        samples = self._all_samples()
        self._num_taken = 0
        while batches:
            sample = next(samples)
            self._num_taken += 1
            group = waiting[groups[sample[1]]]
            group.append(sample)
            if len(group) == self._batch_size:
                group.clear()
                batches -= 1
        self._waiting = list(itertools.chain.from_iterable(waiting.values()))

    def _deal(
        self, samples: Iterator[tuple[int, int]], num_workers: int
    ) -> Iterator[tuple[int, int]]:
        """Reorder samples so that a loader with workers receives them in the original order.

        Detectron2 gives each worker, in turn, as many consecutive samples as a batch has. The
        loader takes a single one from each worker in turn.
        """
        size = num_workers * self._batch_size
        while True:
            block = list(itertools.islice(samples, size))
            for place in range(size):
                worker, number = divmod(place, self._batch_size)
                yield block[number * num_workers + worker]


class SeedEachSample:
    """Make the random numbers of a mapper depend on the seed and the number of the sample only.

    A sample then is the same after a resumption, in whichever worker it is loaded. The generators
    of the process are left as they were.
    """

    def __init__(self, mapper: Callable[[dict], Any], sampler: ResumableTrainingSampler, seed: int):
        """
        Args:
            mapper: of a training data loader with this sampler.
            sampler: gives the numbers of the samples.
            seed: of the run, 0 or more.
        """
        self.mapper = mapper
        self.sampler = sampler
        self.seed = seed

    def __call__(self, dataset_dict: dict) -> Any:
        seeds = np.random.SeedSequence([self.seed, self.sampler.sample]).generate_state(3)
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(int(seeds[0]))
        np.random.seed(seeds[1])
        torch.default_generator.manual_seed(int(seeds[2]))
        try:
            return self.mapper(dataset_dict)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
