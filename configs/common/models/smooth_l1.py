"""Box regression with smooth L1 (arXiv 1504.08083) instead of Detectron2's default, L1."""

from omegaconf import DictConfig


def use_smooth_l1(model: DictConfig) -> None:
    """Use it in Faster or Mask R-CNN: quadratic below 1 in the heads, as there, 1/9 in the RPN.

    Cascades of these configs have it already.
    """
    model.proposal_generator.smooth_l1_beta = 1 / 9
    model.roi_heads.box_predictor.smooth_l1_beta = 1.0
