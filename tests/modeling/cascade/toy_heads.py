"""Small HTC heads whose detections are worth comparing."""

import copy

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)

from hybrid_cascade.modeling import HTCROIHeads

CHANNELS, CLASSES, FEATURES = 8, 3, ["p2", "p3", "p4", "p5"]
SIZES = [(96, 128), (80, 100)]
# Cascade Mask R-CNN, and with Detectron2's gradients
OFF = {
    "interleaved": False,
    "mask_information_flow": False,
    "semantic_fusion": "none",
    "stage_loss_weights": None,
}
AS_DETECTRON2 = {**OFF, "scale_box_gradients": True}
SEMANTIC_POOLER = ROIPooler(14, [1 / 8], 0, "ROIAlignV2")


def box_arguments(stages=3, class_wise=False, **predictor):
    weights = [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15), (30, 30, 15, 15)]
    return {
        "num_classes": CLASSES,
        "batch_size_per_image": 16,
        "positive_fraction": 0.5,
        "box_in_features": FEATURES,
        "box_pooler": ROIPooler(7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2"),
        "box_heads": [
            FastRCNNConvFCHead(
                ShapeSpec(channels=CHANNELS, height=7, width=7), conv_dims=[], fc_dims=[16]
            )
            for _ in range(stages)
        ],
        "box_predictors": [
            FastRCNNOutputLayers(
                ShapeSpec(channels=16),
                box2box_transform=Box2BoxTransform(weights[t]),
                num_classes=CLASSES,
                cls_agnostic_bbox_reg=not class_wise,
                **predictor,
            )
            for t in range(stages)
        ],
        "proposal_matchers": [
            Matcher([iou], [0, 1], allow_low_quality_matches=False)
            for iou in [0.5, 0.6, 0.7, 0.7][:stages]
        ],
    }


def mask_arguments():
    return {
        "mask_in_features": FEATURES,
        "mask_pooler": ROIPooler(14, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2"),
    }


def mask_heads(number):
    return [
        MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=CHANNELS, height=14, width=14),
            num_classes=CLASSES,
            conv_dims=[CHANNELS] * 3,
        )
        for _ in range(number)
    ]


def liven_up(module):
    """Set weights large enough that boxes move, scores differ, and masks are not grey."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        scale = 2.0 / max(1, parameter[0].numel()) ** 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    for predictor in module.box_predictor:
        predictor.bbox_pred.weight.data *= 0.1
        predictor.bbox_pred.bias.data *= 0.1
    return module


def htc(stages=3, masks=True, num_mask_heads=None, class_wise=False, **switches):
    heads = {}
    if masks:
        heads = {**mask_arguments(), "mask_heads": mask_heads(num_mask_heads or stages)}
    return liven_up(HTCROIHeads(**box_arguments(stages, class_wise), **heads, **switches))


def boxes_of_htc(test_nms_thresh=0.5, **switches):
    heads = htc(masks=False, **switches)
    for predictor in heads.box_predictor:
        predictor.test_nms_thresh, predictor.test_topk_per_image = test_nms_thresh, -1
    return heads


def train(roi_heads, features, proposals, targets):
    torch.manual_seed(1)
    _, losses = roi_heads.train()(None, features, copy.deepcopy(proposals), targets)
    return losses


def detect(roi_heads, features, proposals):
    with torch.no_grad():
        instances, _ = roi_heads.eval()(None, features, copy.deepcopy(proposals))
    return instances


def assert_equal_instances(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) == len(b) > 0
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_masks, b.pred_masks)
        assert torch.equal(a.pred_classes, b.pred_classes)
