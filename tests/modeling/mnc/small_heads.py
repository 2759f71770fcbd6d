"""MNC's ROI heads with a few channels, which see one map of stride 4, and what to feed them.

Letters are those of modeling/mnc/roi_heads.py.
"""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.structures import Boxes, Instances

from hybrid_cascade.modeling import MNCMaskHead, MNCOutputLayers, MNCROIHeads, ROIWarpPooler

CHANNELS, CLASSES, SIDE = 4, 3, 7
SIZES = [(64, 80), (56, 72)]


def make_heads(classes=CLASSES, transform=Box2BoxTransform, predictor=None, **arguments):
    torch.manual_seed(0)
    features = 3 * 6 if arguments.get("global_context") else 2 * 6
    shape = ShapeSpec(channels=CHANNELS, height=3, width=3)
    heads = MNCROIHeads(
        **{
            "num_classes": classes,
            "batch_size_per_image": 16,
            "proposal_matcher": Matcher([0.5], [0, 1], allow_low_quality_matches=False),
            "in_features": ["p2"],
            "pooler": ROIWarpPooler(12, [1 / 4], max_pool=2),
            "mask_head": MNCMaskHead(ShapeSpec(channels=CHANNELS, height=6, width=6), 8, SIDE),
            "masked_head": FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[6]),
            "box_head": FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[6]),
            "predictor": MNCOutputLayers(
                ShapeSpec(channels=features),
                box2box_transform=transform((10.0, 10.0, 5.0, 5.0)),
                num_classes=classes,
                **(predictor or {}),
            ),
            **arguments,
        }
    )
    generator = torch.Generator().manual_seed(3)
    for parameter in heads.parameters():
        scale = 2.0 / max(1, parameter[0].numel()) ** 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return heads


def make_features(dtype=torch.float32, key="p2"):
    generator = torch.Generator().manual_seed(5)
    return {key: torch.randn(2, CHANNELS, 16, 20, generator=generator).to(dtype)}


def make_targets(make_ground_truth, bitmasks=True):
    return [
        make_ground_truth(*SIZES[0], [[8, 9, 50, 52], [30, 5, 77, 33]], [0, 2], bitmasks),
        make_ground_truth(*SIZES[1], [[11, 13, 44, 49]], [1], bitmasks),
    ]


def make_proposals(targets, dtype=torch.float32):
    """Boxes near the ground truth and elsewhere, whose coordinates have gradients."""
    generator = torch.Generator().manual_seed(7)
    proposals = []
    for target in targets:
        boxes = target.gt_boxes.tensor.to(dtype)
        near = boxes.repeat(3, 1)
        near = near + 6 * torch.rand(near.shape, generator=generator).to(dtype) - 3
        far = torch.tensor([[1.3, 2.1, 20.7, 17.9], [40.2, 30.3, 60.1, 50.7]], dtype=dtype)
        boxes = torch.cat([near, far]).requires_grad_()
        proposals.append(
            Instances(
                target.image_size,
                proposal_boxes=Boxes(boxes),
                objectness_logits=torch.zeros(len(boxes)),
            )
        )
    return proposals


def train(heads, features, proposals, targets):
    heads.train()
    torch.manual_seed(11)  # sampled boxes
    _, losses = heads(None, features, proposals, targets)
    return losses


def infer(heads, targets):
    with torch.no_grad():
        return heads.eval()(None, make_features(), make_proposals(targets))[0]
