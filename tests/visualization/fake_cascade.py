"""A cascade whose detections are known, and what tests of its pictures share."""

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances
from torch import nn

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class FakeCascade(GeneralizedRCNN):
    """Finds one object in the left half at stage t if t <= `stages_that_find`, class = t - 1."""

    def __init__(self, num_stages=3, masks=True, num_labels=0, stages_that_find=3):
        super().__init__(
            backbone=FakeBackbone(),
            proposal_generator=FakeRPN(),
            roi_heads=FakeHeads(num_stages, masks, stages_that_find),
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
            input_format="BGR",
        )
        if num_labels:
            self.semantic_branch = FakeBranch(num_labels)
        self.eval()


class FakeBackbone(nn.Module):
    size_divisibility, padding_constraints = 0, {}

    def forward(self, images):
        return {"p2": images}


class FakeRPN(nn.Module):
    def forward(self, images, features, gt_instances):
        return [Instances(size) for size in images.image_sizes], {}


class FakeHeads(nn.Module):
    def __init__(self, num_stages, masks, stages_that_find):
        super().__init__()
        self.masks, self.stages_that_find = masks, stages_that_find
        self.test_stage_choices = range(1, num_stages + 1)
        ious = [0.5 + 0.1 * t for t in range(num_stages)]
        self.proposal_matchers = [Matcher([iou], [0, 1]) for iou in ious]

    def forward(self, images, features, proposals):
        return self.detect(features, proposals, test_stages=1), {}

    def detect(self, features, proposals, *, test_stages):
        n = int(test_stages <= self.stages_that_find)
        (h, w), found = proposals[0].image_size, Instances(proposals[0].image_size)
        found.pred_boxes = Boxes(torch.tensor([[0.1 * w, 0.2 * h, 0.5 * w, 0.8 * h]])[:n])
        found.scores = torch.tensor([0.9])[:n]
        found.pred_classes = torch.tensor([test_stages - 1])[:n]
        if self.masks:
            found.pred_masks = torch.ones(n, 1, 28, 28)
        return [found]


class FakeBranch(nn.Module):
    """Predicts the last label everywhere."""

    def __init__(self, num_labels):
        super().__init__()
        self.num_labels = num_labels

    def forward(self, features, targets):
        n, _, h, w = features["p2"].shape
        logits = torch.zeros(n, self.num_labels, h, w)
        logits[:, -1] = 1
        return features, logits, {}


def metadata(**more):
    classes = {"thing_classes": ["cup", "fork", "bowl"], "thing_colors": [RED, GREEN, BLUE]}
    return Metadata(name="test", **{**classes, **more})


def model_input(height=60, width=80, value=128):
    return {
        "image": torch.full((3, height, width), value, dtype=torch.uint8),
        "height": height,
        "width": width,
    }


def has_hue_of(tile, color):
    """Whether pixels of a tile on grey lean clearly towards a primary colour."""
    lean = tile.astype(int) - tile.astype(int).mean(axis=2, keepdims=True)
    return ((lean[:, :, np.argmax(color)] > 40).mean()) > 0.05
