import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader

from hybrid_cascade.engine.sampler import ResumableTrainingSampler, SeedEachSample

LANDSCAPE = [True, True, False, True, False, True, True, False, True]
IMAGES = [{"id": i, "width": 3 - (not wide) * 2, "height": 2} for i, wide in enumerate(LANDSCAPE)]


def test_it_continues_where_a_run_has_stopped():
    whole = list(islice(ResumableTrainingSampler(7, seed=3), 20))
    resumed = ResumableTrainingSampler(7, seed=3)
    resumed.skip(3, batch_size=3)
    assert list(islice(resumed, 11)) == whole[9:]
    assert sorted(whole[:7]) == list(range(7))


def draw(image):
    """Return an image with numbers of all generators."""
    return {**image, "drawn": (random.random(), np.random.rand(), torch.rand(()).item())}


def batches(skip, number, workers=0, grouping=True, batch_size=3):
    sampler = ResumableTrainingSampler(len(IMAGES), seed=5)
    loader = build_detection_train_loader(
        IMAGES,
        mapper=SeedEachSample(draw, sampler, seed=1),
        sampler=sampler,
        total_batch_size=batch_size,
        aspect_ratio_grouping=grouping,
        num_workers=workers,
    )
    sampler.skip(skip, batch_size=batch_size, groups=LANDSCAPE if grouping else None)
    return list(islice(loader, number))


@pytest.mark.parametrize("skip", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("batch_size", [2, 3])
def test_images_of_both_orientations_and_their_augmentations_continue(skip, batch_size):
    whole = batches(0, skip + 12, batch_size=batch_size)
    assert {image["width"] > 2 for batch in whole for image in batch} == {True, False}
    assert batches(skip, 12, batch_size=batch_size) == whole[skip:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on two cores
@pytest.mark.parametrize("grouping", [True, False])
def test_workers_change_neither_images_nor_augmentations_before_and_after_a_break(grouping):
    whole = batches(0, 11, grouping=grouping)
    assert batches(0, 11, workers=2, grouping=grouping) == whole
    assert batches(4, 7, workers=3, grouping=grouping) == whole[4:]


def test_a_mapper_leaves_the_random_numbers_of_the_process_alone():
    def numbers():
        return random.random(), np.random.rand(), torch.rand(()).item()

    def reset():
        random.seed(0), np.random.seed(0), torch.manual_seed(0)

    mapper = SeedEachSample(draw, ResumableTrainingSampler(4, seed=0), seed=2)
    reset()
    expected = numbers()
    reset()
    first = mapper({})
    assert numbers() == expected and mapper({}) == first and first["drawn"] != expected


def test_each_sample_of_each_process_has_random_numbers_of_its_own():
    samplers = [ResumableTrainingSampler(4, seed=0) for _ in range(2)]
    for rank, sampler in enumerate(samplers):
        sampler._rank, sampler._world_size = rank, 2
    drawn = [SeedEachSample(draw, s, seed=2)({})["drawn"] for s in samplers for _ in islice(s, 9)]
    assert len(set(drawn)) == 18
