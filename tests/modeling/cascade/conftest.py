"""Inputs of RoI heads: feature maps, proposals and ground truth of two images."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from .toy_heads import CHANNELS, SIZES


@pytest.fixture
def features():
    maps = {f"p{k}": torch.randn(2, CHANNELS, 128 >> k, 128 >> k) for k in range(2, 6)}
    maps["semantic"] = torch.randn(2, CHANNELS, 16, 16)
    return maps


@pytest.fixture
def targets(make_ground_truth):
    return [
        make_ground_truth(*SIZES[0], [[10, 10, 50, 60], [60, 20, 120, 90]], [0, 2]),
        make_ground_truth(*SIZES[1], [[5, 30, 70, 75]], [1]),
    ]


@pytest.fixture
def proposals(targets):
    """The ground truth moved about, and some boxes anywhere."""
    result = []
    for size, target in zip(SIZES, targets, strict=True):
        near = target.gt_boxes.tensor.repeat(10, 1)
        near = near + torch.randn_like(near) * 5
        corner = torch.rand(10, 2) * 40
        boxes = Boxes(torch.cat([near, torch.cat([corner, corner + 30], dim=1)]))
        boxes.clip(size)
        logits = torch.zeros(len(boxes))
        result.append(Instances(size, proposal_boxes=boxes, objectness_logits=logits))
    return result
