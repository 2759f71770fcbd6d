"""Weights in the layout of MNC's published file, and the shapes of our model for them.

The real file has 512 channels, 4096 features and 20 classes. This one is small.
"""

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from hybrid_cascade.modeling import VGG16

CHANNELS, FEATURES, CLASSES, MASK_SIDE = 4, 6, 3, 2


def make_mnc_weights():
    """Draw the layers of the five-stage network in Caffe, without the copies of stages 4 and 5."""
    convs = VGG16(channels=[CHANNELS] * 5).state_dict()
    layers = {
        "rpn_conv_3x3": (CHANNELS, CHANNELS, 3, 3),
        "rpn_cls_score": (2 * 9, CHANNELS, 1, 1),
        "rpn_bbox_pred": (4 * 9, CHANNELS, 1, 1),
        "fc6_maskest": (5, CHANNELS * 14 * 14),
        "mask_pred": (MASK_SIDE**2, 5),
        "fc6": (FEATURES, CHANNELS * 7 * 7),
        "fc7": (FEATURES, FEATURES),
        "fc6_mask": (FEATURES, CHANNELS * 7 * 7),
        "fc7_mask": (FEATURES, FEATURES),
        "cls_score": (CLASSES + 1, 2 * FEATURES),
        "seg_cls_score": (CLASSES + 1, 2 * FEATURES),
        "bbox_pred": (4 * (CLASSES + 1), 2 * FEATURES),
    }
    weights = {name: torch.randn_like(tensor) for name, tensor in convs.items()}
    for layer, shape in layers.items():
        weights[f"{layer}.weight"] = torch.randn(shape) * 0.1
        weights[f"{layer}.bias"] = torch.randn(shape[0]) * 0.1
    return weights


def our_shapes():
    """Return the parameters of our model, whose values are arbitrary, by name."""
    layers = {
        "proposal_generator.rpn_head.conv": (CHANNELS, CHANNELS, 3, 3),
        "proposal_generator.rpn_head.objectness_logits": (9, CHANNELS, 1, 1),
        "proposal_generator.rpn_head.anchor_deltas": (36, CHANNELS, 1, 1),
        "roi_heads.mask_head.fc": (5, CHANNELS * 14 * 14),
        "roi_heads.mask_head.predictor": (MASK_SIDE**2, 5),
        "roi_heads.box_head.fc1": (FEATURES, CHANNELS * 7 * 7),
        "roi_heads.box_head.fc2": (FEATURES, FEATURES),
        "roi_heads.masked_head.fc1": (FEATURES, CHANNELS * 7 * 7),
        "roi_heads.masked_head.fc2": (FEATURES, FEATURES),
        "roi_heads.predictor.cls_score": (CLASSES + 1, 2 * FEATURES),
        "roi_heads.predictor.box_cls_score": (CLASSES + 1, 2 * FEATURES),
        "roi_heads.predictor.bbox_pred": (4 * CLASSES, 2 * FEATURES),
    }
    target = {f"backbone.{n}": p for n, p in VGG16(channels=[CHANNELS] * 5).state_dict().items()}
    for layer, shape in layers.items():
        target[f"{layer}.weight"] = torch.empty(shape)
        target[f"{layer}.bias"] = torch.empty(shape[0])
    return target


def anchor_generator(sizes=((128, 256, 512),), offset=0.5):
    """Detectron2's anchor generator with the settings of our MNC config."""
    return DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=[[0.5, 1, 2]], strides=[16], offset=offset
    )
