"""The generalized IoU of decoded boxes (arXiv 1902.09630) as their regression loss."""

from omegaconf import DictConfig


def use_giou_loss(model: DictConfig, weight: float) -> None:
    """Train the boxes of all stages of a cascade with it, instead of with smooth L1."""
    for predictor in model.roi_heads.box_predictors:
        predictor.box_reg_loss_type = "giou"
        predictor.loss_weight = {"loss_box_reg": weight}
