"""The three predictions of MNC's categorising stage (arXiv 1512.04412, Section 3.3)."""

from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cross_entropy
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn


class MNCOutputLayers(FastRCNNOutputLayers):
    """Detectron2's output layers with a second classifier.

    `cls_score` classifies an instance: box and mask (the only scores that inference uses),
    `box_cls_score` the box alone, and `bbox_pred` regresses the box for each class. All see the
    features of both pathways.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, **kwargs):
        """
        Args:
            input_shape: channels of the joined features of the pathways.
            kwargs: the arguments of `FastRCNNOutputLayers`.
        """
        super().__init__(input_shape, **kwargs)
        self.box_cls_score = nn.Linear(self.cls_score.in_features, self.cls_score.out_features)
        nn.init.normal_(self.box_cls_score.weight, std=0.01)
        nn.init.zeros_(self.box_cls_score.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (R, D) to mask-level and box-level logits (R, N + 1) and deltas (R, 4 N)."""
        scores, deltas = super().forward(x)
        return scores, self.box_cls_score(x.flatten(1)), deltas

    def losses(
        self,
        predictions: tuple[Tensor, Tensor, Tensor],
        proposals: list[Instances],
        mask_classes: Tensor,
    ) -> dict[str, Tensor]:
        """
        Args:
            predictions: of `forward`.
            proposals: as for `FastRCNNOutputLayers`: "gt_classes" is the box-level class.
            mask_classes: (R,), the mask-level classes; N is the background.

        Returns:
            "loss_cls" of instances, "loss_box_cls", "loss_box_reg".
        """
        scores, box_scores, deltas = predictions
        losses = super().losses((box_scores, deltas), proposals)
        losses["loss_box_cls"] = losses.pop("loss_cls")
        if self.use_sigmoid_ce:
            loss = self.sigmoid_cross_entropy_loss(scores, mask_classes)
        else:
            loss = cross_entropy(scores, mask_classes, reduction="mean")
        losses["loss_cls"] = loss * self.loss_weight.get("loss_cls", 1.0)
        return losses
