"""MNC in Caffe and here: converted layers compute the same proposals, probabilities and boxes."""

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch.nn import functional as F

from .mnc_caffe_weights import CHANNELS, CLASSES, FEATURES, anchor_generator

# py-faster-rcnn prints these anchors (x1, y1, x2, y2, all inclusive) of the first cell, in MATLAB's
# coordinates, which start at 1.
ANCHORS = torch.tensor(
    [
        [-83.0, -39, 100, 56],
        [-175, -87, 192, 104],
        [-359, -183, 376, 200],
        [-55, -55, 72, 72],
        [-119, -119, 136, 136],
        [-247, -247, 264, 264],
        [-35, -79, 52, 96],
        [-79, -167, 96, 184],
        [-167, -343, 184, 360],
    ]
)


def linear(weights, layer, x):
    function = F.conv2d if weights[f"{layer}.weight"].dim() == 4 else F.linear
    return function(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])


def decode_like_mnc(boxes, deltas):
    """Move boxes (R, 4), which contain their last pixels, by deltas (R, 4)."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    center = boxes[:, :2] + size / 2 + deltas[:, :2] * size
    size = size * deltas[:, 2:].exp()
    return torch.cat([center - size / 2, center + size / 2], dim=1)


@torch.no_grad()
def test_proposals_and_their_scores_are_those_of_the_anchors_of_caffe(mnc_weights, converted):
    x = torch.randn(1, CHANNELS, 2, 3)
    # Caffe's outputs in the order (height, width, anchor).
    scores = linear(mnc_weights, "rpn_cls_score", x).view(1, 2, -1, 3).softmax(dim=1)
    scores = scores.view(1, 18, 2, 3)[:, 9:].permute(0, 2, 3, 1).reshape(2, 3, 9)
    deltas = linear(mnc_weights, "rpn_bbox_pred", x).permute(0, 2, 3, 1).reshape(-1, 4)
    shift_y, shift_x = torch.meshgrid(torch.arange(2) * 16, torch.arange(3) * 16, indexing="ij")
    shifts = torch.stack([shift_x, shift_y] * 2, dim=-1).view(-1, 1, 4)
    boxes = decode_like_mnc((ANCHORS - 1 + shifts).view(-1, 4), deltas).view(2, 3, 9, 4)

    head = "proposal_generator.rpn_head"
    our_scores = linear(converted, f"{head}.objectness_logits", x).sigmoid().permute(0, 2, 3, 1)[0]
    our_deltas = linear(converted, f"{head}.anchor_deltas", x).view(9, 4, 2, 3).permute(2, 3, 0, 1)
    anchors = anchor_generator()([x])[0].tensor
    transform = Box2BoxTransform(weights=(1, 1, 1, 1))
    our_boxes = transform.apply_deltas(our_deltas.reshape(-1, 4), anchors).view(2, 3, 9, 4)

    # Detectron2 has the shapes of each size, MNC the sizes of each shape.
    order = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    torch.testing.assert_close(our_scores, scores[..., order])
    torch.testing.assert_close(our_boxes, boxes[..., order, :], rtol=1e-5, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("their_layer", "our_layer"),
    [("seg_cls_score", "cls_score"), ("cls_score", "box_cls_score")],
)
def test_every_class_keeps_its_probability(mnc_weights, converted, their_layer, our_layer):
    x = torch.randn(5, 2 * FEATURES)
    expected = linear(mnc_weights, their_layer, x).softmax(dim=1)
    actual = linear(converted, f"roi_heads.predictor.{our_layer}", x).softmax(dim=1)
    torch.testing.assert_close(actual[:, :-1], expected[:, 1:])
    torch.testing.assert_close(actual[:, -1], expected[:, 0])


@torch.no_grad()
def test_boxes_of_every_class_are_moved_as_in_caffe(mnc_weights, converted):
    x = torch.randn(5, 2 * FEATURES)
    inclusive = torch.tensor([[10.0, 20, 59, 99]]).repeat(5, 1)
    boxes = inclusive + torch.tensor([0, 0, 1, 1])
    deltas = linear(mnc_weights, "bbox_pred", x)
    our_deltas = linear(converted, "roi_heads.predictor.bbox_pred", x)
    moved = Box2BoxTransform(weights=(10, 10, 5, 5)).apply_deltas(our_deltas, boxes)
    for k in range(CLASSES):
        expected = decode_like_mnc(inclusive, deltas[:, 4 * (k + 1) : 4 * (k + 2)])
        torch.testing.assert_close(moved[:, 4 * k : 4 * k + 4], expected)


@torch.no_grad()
def test_features_of_the_pathways_are_joined_as_masked_then_box(mnc_weights, converted):
    masked, box = torch.rand(2, 5, CHANNELS, 7, 7)
    features = [
        linear(mnc_weights, f"fc7{s}", linear(mnc_weights, f"fc6{s}", x.flatten(1)).relu()).relu()
        for s, x in (("_mask", masked), ("", box))
    ]
    our_features = [
        linear(converted, f"{h}.fc2", linear(converted, f"{h}.fc1", x.flatten(1)).relu()).relu()
        for h, x in (("roi_heads.masked_head", masked), ("roi_heads.box_head", box))
    ]
    expected = linear(mnc_weights, "seg_cls_score", torch.cat(features, dim=1)).roll(-1, 1)
    actual = linear(converted, "roi_heads.predictor.cls_score", torch.cat(our_features, dim=1))
    torch.testing.assert_close(actual, expected)


def test_layers_without_classes_and_anchors_are_copied(mnc_weights, converted):
    for their_layer, our_layer in {
        "conv5_3": "backbone.conv5_3",
        "rpn_conv_3x3": "proposal_generator.rpn_head.conv",
        "fc6_maskest": "roi_heads.mask_head.fc",
        "mask_pred": "roi_heads.mask_head.predictor",
    }.items():
        for what in ("weight", "bias"):
            assert torch.equal(
                mnc_weights[f"{their_layer}.{what}"], converted[f"{our_layer}.{what}"]
            )
