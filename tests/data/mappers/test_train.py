import copy

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks
from detectron2.utils.env import seed_all_rng

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.data import CopyPasteMapper, PartialMasksMapper, build_train_mapper

JITTER = "INPUT.LARGE_SCALE_JITTER."
PASTE = "INPUT.COPY_PASTE."


def config(*overrides):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.merge_from_list(["MODEL.MASK_ON", True, "INPUT.MASK_FORMAT", "bitmask", *overrides])
    return cfg


def settings(mapper):
    """Return augmentations as text, `recompute_boxes`, and the other settings of a mapper."""
    found = {**vars(mapper), "augmentations": [str(x) for x in mapper.augmentations.augs]}
    return found.pop("augmentations"), found.pop("recompute_boxes"), found


@pytest.mark.parametrize("crop", [False, True])
def test_without_jitter_and_copy_paste_it_is_the_mapper_of_detectron2(scene, crop):
    cfg = config("INPUT.CROP.ENABLED", crop, "INPUT.FORMAT", "RGB")
    mapper = build_train_mapper(cfg, [])
    assert type(mapper) is PartialMasksMapper
    assert settings(mapper) == settings(DatasetMapper(cfg, is_train=True))


def test_jitter_replaces_resizing_and_nothing_else():
    keys = ("INPUT.CROP.ENABLED", True, "INPUT.RANDOM_FLIP", "vertical", "INPUT.FORMAT", "RGB")
    plain = settings(build_train_mapper(config(*keys), []))
    cfg = config(*keys, JITTER + "ENABLED", True)
    augmentations, _, others = settings(build_train_mapper(cfg, []))
    crop, resize, flip = plain[0]
    assert "ResizeShortestEdge" in resize
    assert (augmentations[0], augmentations[-1], others) == (crop, flip, plain[2])
    kinds = [type(x) for x in build_train_mapper(cfg, []).augmentations.augs]
    assert kinds == [T.RandomCrop, T.ResizeScale, T.FixedSizeCrop, T.RandomFlip]
    assert not build_train_mapper(config(), []).recompute_boxes
    cfg = config(JITTER + "ENABLED", True)
    assert build_train_mapper(cfg, []).recompute_boxes
    cfg.MODEL.MASK_ON = False  # boxes without masks are moved and clipped
    assert not build_train_mapper(cfg, []).recompute_boxes


def test_the_keys_of_jitter_reach_the_image(scene):
    record = scene("t", 10, [(0, 0, 60, 20)], label=7, masks="bitmask")
    keys = [JITTER + "ENABLED", True, JITTER + "IMAGE_SIZE", 64, "INPUT.RANDOM_FLIP", "none"]
    keys += [JITTER + "MIN_SCALE", 0.5, JITTER + "MAX_SCALE", 0.5]
    out = build_train_mapper(config(*keys), [])(copy.deepcopy(record))
    assert out["image"].shape == (3, 21, 32)  # 40 x 60 in half of the square
    keys += [JITTER + "PAD", True, "MODEL.SEMANTIC_BRANCH.IGNORE_VALUE", 99]
    out = build_train_mapper(config(*keys), [])(copy.deepcopy(record))
    assert out["image"].shape == (3, 64, 64)
    assert (out["sem_seg"] == 99).sum() == 64 * 64 - 21 * 32
    keys += [JITTER + "MAX_SCALE", 2.0]
    np.random.seed(0)
    mapper = build_train_mapper(config(*keys), [])
    filled = {int((mapper(copy.deepcopy(record))["sem_seg"] == 7).sum()) for _ in range(10)}
    assert min(filled) < 64 * 48 and max(filled) == 64 * 64


def test_the_keys_of_copy_paste_reach_the_image(scene):
    target = scene("t", 10, [], label=1, masks="bitmask")
    boxes = [(10 * i, 0, 10 * i + 5, 5) for i in range(6)]
    source = scene("s", 200, boxes, masks="bitmask")
    keys = ["INPUT.MIN_SIZE_TRAIN", (0,), "MODEL.SEMANTIC_BRANCH.IGNORE_VALUE", 99]
    keys += [PASTE + "ENABLED", True, PASTE + "MAX_INSTANCES", 2]
    mapper = build_train_mapper(config(*keys), [source])
    assert type(mapper) is CopyPasteMapper
    plain = build_train_mapper(config(*keys[:4]), [source])
    assert settings(mapper.mapper) == settings(plain)
    seed_all_rng(0)
    outs = [mapper(target) for _ in range(30)]
    assert {len(out["instances"]) for out in outs} == {0, 1, 2}
    assert all(isinstance(out["instances"].gt_masks, BitMasks) for out in outs)
    for out in outs:  # the source has no label map
        assert torch.equal(out["sem_seg"] == 99, out["instances"].gt_masks.tensor.any(0))
    mapper = build_train_mapper(config(*keys, PASTE + "PROBABILITY", 0.0), [source])
    assert all(len(mapper(target)["instances"]) == 0 for _ in range(10))


def test_pasting_without_masks_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"INPUT.COPY_PASTE.*MODEL.MASK_ON True"):
        build_train_mapper(config(PASTE + "ENABLED", True, "MODEL.MASK_ON", False), [{}])
