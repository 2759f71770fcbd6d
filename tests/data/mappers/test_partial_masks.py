import copy

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks, BoxMode

from hybrid_cascade.data import CopyPasteMapper, PartialMasksMapper

BOXES = [[4, 6, 30, 36], [10, 2, 20, 12], [40, 20, 55, 38]]


def mapper(masks="polygon", augmentations=(), kind=PartialMasksMapper, **options):
    return kind(
        is_train=True,
        augmentations=list(augmentations),
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format=masks,
        **options,
    )


@pytest.fixture(params=["polygon", "bitmask"])
def masks(request):
    return request.param


@pytest.fixture
def record(scene, masks):
    """An image of three instances, of which the first and the last have no mask."""
    record = scene("image", 90, BOXES, masks=masks)
    record["annotations"][0].pop("segmentation")
    record["annotations"][2]["segmentation"] = []
    return record


def test_instances_without_a_mask_keep_box_and_class_and_are_marked(record, masks):
    before = copy.deepcopy(record)
    instances = mapper(masks)(record)["instances"]
    assert record == before
    assert instances.gt_has_mask.tolist() == [False, True, False]
    assert instances.gt_classes.tolist() == [0, 1, 2]
    assert instances.gt_boxes.tensor.tolist() == BOXES
    if masks == "bitmask":
        assert instances.gt_masks.tensor[1].sum() == 100


def test_where_all_have_masks_it_is_detectron2s_mapper(scene, masks):
    record = scene("image", 90, BOXES, masks=masks)
    ours, theirs = (
        mapper(masks, kind=kind)(copy.deepcopy(record))["instances"]
        for kind in (PartialMasksMapper, DatasetMapper)
    )
    assert ours.get_fields().keys() == theirs.get_fields().keys()
    assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)


def test_a_crowd_without_a_mask_leaves_no_mark(scene, masks):
    record = scene("image", 90, BOXES, masks=masks)
    record["annotations"][1]["iscrowd"] = 1
    record["annotations"][1].pop("segmentation")
    instances = mapper(masks)(record)["instances"]
    assert len(instances) == 2 and not instances.has("gt_has_mask")


def test_without_masks_in_the_model_nothing_is_marked(record):
    plain = PartialMasksMapper(is_train=True, augmentations=[], image_format="RGB")
    instances = plain(record)["instances"]
    assert len(instances) == 3
    assert instances.get_fields().keys() == {"gt_boxes", "gt_classes"}


@pytest.mark.parametrize("recompute_boxes", [True, False])
def test_marks_stay_with_their_instances_when_others_are_cropped_away(
    record, masks, recompute_boxes
):
    crop = T.CropTransform(0, 0, 25, 40)
    augmentations = [crop, T.HFlipTransform(25)]
    instances = mapper(masks, augmentations, recompute_boxes=recompute_boxes)(record)["instances"]
    assert instances.gt_has_mask.tolist() == [False, True]
    assert instances.gt_classes.tolist() == [0, 1]
    assert instances.gt_boxes.tensor.tolist() == [[0, 6, 21, 36], [5, 2, 15, 12]]


def test_an_image_of_boxes_only_and_one_of_nothing(record, masks):
    record["annotations"] = record["annotations"][::2]
    assert not mapper(masks)(copy.deepcopy(record))["instances"].gt_has_mask.any()
    record["annotations"] = []
    assert len(mapper(masks)(copy.deepcopy(record))["instances"]) == 0
    record.pop("annotations")
    assert "instances" not in mapper(masks)(record)


def test_boxes_of_width_and_height_are_understood(record, masks):
    record["annotations"][0].update(bbox=[4, 6, 26, 30], bbox_mode=BoxMode.XYWH_ABS)
    instances = mapper(masks)(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == BOXES
    if masks == "bitmask":
        assert instances.gt_masks.tensor[0, 6:36, 4:30].all()


def test_copy_paste_pastes_instances_with_masks_only(record, scene, masks, monkeypatch):
    target = scene("target", 20, [[0, 0, 60, 40]], masks=masks)
    target["annotations"][0].pop("segmentation")
    monkeypatch.setattr(np.random, "randint", lambda high: high - 1)
    pasted = CopyPasteMapper(mapper(masks), [record])(target)["instances"]
    assert pasted.gt_has_mask.tolist() == [False, True]
    assert pasted.gt_classes.tolist() == [0, 1]
    assert isinstance(pasted.gt_masks, BitMasks)
    assert pasted.gt_boxes.tensor.tolist() == [[0, 0, 60, 40], BOXES[1]]
