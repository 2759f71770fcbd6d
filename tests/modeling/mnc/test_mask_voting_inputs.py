"""Inputs that mask voting has to take in its stride: none, empty, half precision, wrong."""

import math

import pytest
import torch
from detectron2.structures import Instances

from hybrid_cascade.modeling.mnc import mask_voting

from .voting_by_loops import assert_same, cat, clustered, instance, voting_by_loops


def empty_instances(size, classes):
    return torch.zeros(0, 4), torch.zeros(0, size, size), torch.zeros(0, classes)


def test_no_instances_give_no_detections():
    result = mask_voting(*empty_instances(21, 20), (30, 40))
    assert isinstance(result, Instances) and len(result) == 0
    assert result.image_size == (30, 40)
    assert result.pred_boxes.tensor.shape == (0, 4)
    assert result.scores.shape == (0,)
    assert result.pred_classes.shape == (0,) and result.pred_classes.dtype == torch.int64
    assert result.pred_masks.shape == (0, 30, 40) and result.pred_masks.dtype == torch.bool


def test_scores_of_zero_give_no_detections():
    boxes, masks, scores, size = clustered()
    assert len(mask_voting(boxes, masks, scores * 0, size)) == 0
    scores[:, 1] = 0
    result = mask_voting(boxes, masks, scores, size)
    assert 1 not in result.pred_classes and len(result) > 0


def test_empty_masks_give_no_detections():
    boxes, masks, scores, size = clustered()
    assert len(mask_voting(boxes, masks * 0, scores, size)) == 0


def test_boxes_without_area_take_no_part():
    boxes, masks, scores, size = clustered()
    bad = torch.tensor([[5, 5, 5, 20], [5, 5, 20, 5], [20, 20, 5, 5], [20, 5, 5, 20], [7, 7, 7, 7]])
    more = (
        torch.cat([bad, boxes]),
        torch.cat([torch.ones(5, 7, 7), masks]),
        torch.cat([torch.full((5, 3), 0.9), scores]),
        size,
    )
    for settings in ({}, {"topk": 3}, {"merge_iou": 0.0}):
        expected = mask_voting(boxes, masks, scores, size, **settings)
        result = mask_voting(*more, **settings)
        assert torch.equal(result.pred_masks, expected.pred_masks)
        assert torch.equal(result.scores, expected.scores)
    assert len(mask_voting(bad, torch.ones(5, 7, 7), torch.ones(5, 3), size)) == 0


def test_boxes_outside_the_image_are_dropped_after_topk():
    boxes, masks = cat(
        instance([-20, -20, -5, -5]), instance([100, 5, 120, 20]), instance([-4, 2, 4, 10])
    )
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    result = mask_voting(boxes, masks, scores, (20, 20))
    assert result.pred_boxes.tensor.tolist() == [[0, 2, 4, 10]]
    assert len(mask_voting(boxes, masks, scores, (20, 20), topk=2)) == 0


def test_classes_do_not_suppress_each_other_beyond_the_images_corner():
    """Where torchvision's shift of the boxes of class 1, by 11 here, lays one on the other."""
    boxes, masks = cat(instance([0, 0, 10, 10]), instance([-11, -11, 1, 1]))
    scores = torch.tensor([[0.8, 0.0], [0.0, 0.6]])
    assert mask_voting(boxes, masks, scores, (10, 12)).pred_classes.tolist() == [0, 1]


def test_half_precision_inputs_give_what_their_values_give():
    boxes, masks, scores, size = clustered()
    halves = boxes.half(), masks.half(), scores.half()
    result = mask_voting(*halves, size)
    assert result.scores.dtype == torch.float32
    assert_same(result, voting_by_loops(*halves, size))


def test_autocast_changes_nothing():
    case = clustered()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = mask_voting(*case)
    assert torch.equal(result.pred_masks, mask_voting(*case).pred_masks)


def test_inputs_stay_as_they_are_and_need_no_gradients():
    boxes, masks, scores, size = clustered()
    inputs = [x.clone().requires_grad_() for x in (boxes, masks, scores)]
    result = mask_voting(*inputs, size)
    assert not result.scores.requires_grad
    for x, y in zip(inputs, (boxes, masks, scores), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    "name, value",
    [
        ("boxes", torch.zeros(2, 5)),
        ("masks", torch.zeros(2, 7, 7, 1)),
        ("masks", torch.zeros(3, 7, 7)),
        ("masks", torch.zeros(2, 7, 8)),
        ("scores", torch.zeros(2)),
        ("scores", torch.zeros(3, 4)),
        ("merge_iou", 1.1),
        ("mask_threshold", 0.0),
        ("mask_threshold", 1.5),
        ("topk", -1),
        ("score_thresh", -0.1),
        ("score_thresh", math.nan),
        ("nms_iou", math.nan),
        ("nms_iou", -0.1),
        ("merge_iou", math.nan),
        ("mask_threshold", math.nan),
        ("topk", 1.5),
        ("image_size", (30, 0)),
        ("image_size", (30, 2**40)),
        ("scores", torch.full((2, 4), math.nan)),
        ("boxes", torch.zeros(2, 4).to_sparse()),
        ("scores", torch.zeros(2, 4, dtype=torch.complex64)),
    ],
)
def test_wrong_shapes_and_values_are_named(name, value):
    arguments = {
        "boxes": torch.zeros(2, 4),
        "masks": torch.zeros(2, 7, 7),
        "scores": torch.zeros(2, 4),
        "image_size": (30, 40),
    }
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        mask_voting(**{**arguments, name: value})


def test_scores_of_a_type_that_cannot_be_compared_are_named():
    boxes, masks = torch.tensor([[0.0, 0, 4, 4]]), torch.ones(1, 3, 3)
    with pytest.raises(TypeError, match="scores .*float8"):
        mask_voting(boxes, masks, torch.ones(1, 2).to(torch.float8_e4m3fn), (8, 8))
