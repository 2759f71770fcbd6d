"""Small models that detect nothing in one of some images, and something in others."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from hybrid_cascade.export import detect, pool_with_torchvision

from ..small_configs import CONFIGS


@pytest.fixture
def images():
    """Of several sizes, and with several numbers of proposals."""
    return [
        torch.randint(0, 256, (3, 64, 96)).float(),
        torch.randint(0, 256, (3, 150, 70)).float(),
        torch.zeros(3, 32, 32),
    ]


@pytest.fixture
def build(tiny_config, images):
    """A model that detects nothing in one of the images, and something in others."""

    def build(name, boxes_of_each_class=False, **switches):
        if name == "ssd_toy":
            config = LazyConfig.load(str(CONFIGS / "quick_start" / "ssd_toy.py")).model
        else:
            config = tiny_config(name)
            config.proposal_generator.nms_thresh = 0.2
            config.roi_heads.update(switches)
            if boxes_of_each_class:
                config.roi_heads.box_predictors[0].cls_agnostic_bbox_reg = False
        model = instantiate(config).eval()
        for part, weight in model.named_parameters():
            # The last of these starts at zero: as if there were no semantic pyramid.
            if part.endswith(("cls_score.weight", "bbox_pred.weight", "predictor.weight")) or (
                ".fusion_convs." in part
            ):
                nn.init.normal_(weight, std=0.05)
        # Above the best score of one image by more than a rounding.
        for threshold in (0, min(best_scores(model, images)) + 1e-4):
            for module in model.modules():
                for name in ("test_score_thresh", "score_thresh"):  # the latter is SSD's
                    if hasattr(module, name):
                        setattr(module, name, threshold)
        return model

    return build


@torch.no_grad()
def best_scores(model, images):
    model = pool_with_torchvision(model)
    return [max(detect(model, [{"image": x}])[0].scores, default=0.0) for x in images]
