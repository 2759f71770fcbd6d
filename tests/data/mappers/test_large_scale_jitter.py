"""`configs/common/data/large_scale_jitter.py`."""

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from hybrid_cascade.model_zoo import get_config_file


def jitter(record, scale, masks="bitmask", pad=False):
    """Map an image for training, into a square of 64 pixels at a given scale, and for testing."""
    if masks == "polygon":
        pytest.importorskip("shapely")  # fvcore crops polygons with it
    dataloader = LazyConfig.load(get_config_file("common/data/coco.py"), "dataloader")
    path = get_config_file("common/data/large_scale_jitter.py")
    LazyConfig.load(path, "use_large_scale_jitter")(dataloader, size=64, pad=pad)
    mapper = dataloader.train.mapper
    mapper.augmentations[0].update(min_scale=scale, max_scale=scale)
    mapper.augmentations.pop()  # the flip
    mapper.instance_mask_format = masks
    return instantiate(mapper)(record), instantiate(dataloader.test.mapper)(record)


def test_label_maps_are_padded_with_the_value_that_is_ignored(scene):
    record = scene("t", 10, [(0, 0, 60, 20)], label=7, masks="bitmask")
    out, _ = jitter(record, scale=0.5, pad=True)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[:21, :32] = True  # 40 x 60 fits into half of the square as 21 x 32
    assert torch.equal(out["sem_seg"], torch.where(inside, 7, 255))
    assert torch.equal(out["image"][0] == 10, inside)


@pytest.mark.parametrize(("masks", "pad"), [("polygon", True), ("bitmask", False)])
def test_instances_of_small_images_keep_to_the_image(scene, masks, pad):
    record = scene("t", 10, [(0, 0, 60, 20)], label=7, masks=masks)
    out, _ = jitter(record, scale=0.5, masks=masks, pad=pad)
    size = (64, 64) if pad else (21, 32)
    assert out["sem_seg"].shape == out["image"].shape[1:] == out["instances"].image_size == size
    box = out["instances"].gt_boxes.tensor[0]
    assert box.tolist() == pytest.approx([0, 0, 32, 10.5], abs=0.51)


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_large_images_are_cropped_and_boxes_are_those_of_the_masks_that_are_left(scene, masks):
    # Twice the size is 85 x 128: crops begin in rows 0 to 21 and columns 0 to 64. The first fills
    # them all, the second is cut or lost.
    record = scene("t", 10, [(0, 0, 60, 40), (0, 0, 8, 8)], label=7, masks=masks)
    numbers = set()
    np.random.seed(0)
    for _ in range(12):
        out, test = jitter(record, scale=2.0, masks=masks)
        assert out["image"].shape == (3, 64, 64) and (out["image"] == 10).all()
        assert out["sem_seg"].shape == (64, 64) and (out["sem_seg"] == 7).all()
        boxes = out["instances"].gt_boxes.tensor
        torch.testing.assert_close(boxes, out["instances"].gt_masks.get_bounding_boxes().tensor)
        assert boxes[0].tolist() == [0, 0, 64, 64]
        numbers.add(len(boxes))
    assert numbers == {1, 2}
    assert test["image"].shape[1:] == (43, 64)  # tests see all of the image
