"""MNC whose stages share no features."""

from copy import deepcopy

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hybrid_cascade.modeling import SeparateBackbones


def use_separate_features(model: DictConfig) -> None:
    """Give stages 1, 2 and 3 of an MNC a backbone each, and boxes without gradients, in place.

    Args:
        model: with one feature.
    """
    [feature] = model.roi_heads.in_features
    stages = ("proposal", "mask", "category")
    model.backbone = L(SeparateBackbones)(**{name: deepcopy(model.backbone) for name in stages})
    model.proposal_generator.in_features = [f"proposal.{feature}"]
    model.roi_heads.mask_in_features = [f"mask.{feature}"]
    model.roi_heads.in_features = [f"category.{feature}"]
    model.roi_heads.end_to_end = False
