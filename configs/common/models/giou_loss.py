"""Box regression with the loss of the generalized IoU (arXiv 1902.09630)."""

from omegaconf import DictConfig


def use_giou_loss(model: DictConfig, weight: float) -> None:
    """Use this loss with a `weight` instead of smooth L1 in all stages of a cascade."""
    predictor = model.roi_heads.box_predictors[0]  # all stages take the first one's values
    predictor.box_reg_loss_type = "giou"
    predictor.loss_weight = {"loss_box_reg": weight}
