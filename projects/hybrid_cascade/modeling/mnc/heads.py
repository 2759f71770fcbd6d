"""The heads of MNC's stages (arXiv 1512.04412): masks, categories, and a pathway for ResNets.

R RoIs, C channels, K classes, M the side of a mask in cells, h x w the cells of pooled features.
"""

import fvcore.nn.weight_init as weight_init
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cross_entropy
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn import functional as F

from .mask_loss import UNKNOWN


class MNCMaskHead(nn.Module):
    """The mask stage (Section 3.2): two fully connected layers that predict a mask without a class.

    They see the features of a whole RoI at once.
    """

    def __init__(self, input_shape: ShapeSpec, fc_dim: int = 256, mask_side: int = 21):
        """
        Args:
            input_shape: channels, height and width of the RoI features.
            fc_dim: width of the hidden layer.
            mask_side: M (21 as released, 28 in the paper).
        """
        super().__init__()
        self.mask_side = mask_side
        inputs = input_shape.channels * input_shape.height * input_shape.width
        self.fc = nn.Linear(inputs, fc_dim)
        self.predictor = nn.Linear(fc_dim, mask_side**2)
        weight_init.c2_xavier_fill(self.fc)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mask logits (R, M, M) of RoI features (R, C, h, w)."""
        logits = self.predictor(F.relu(self.fc(x.flatten(1))))
        return logits.reshape(-1, self.mask_side, self.mask_side)


def joined_pathways(pathway_channels: int, global_context: bool) -> ShapeSpec:
    """Return the shape of what the categorising stage sees: both pathways, and with global context
    the box pathway of the whole image.

    Args:
        pathway_channels: channels of one pathway.
        global_context: as in `MNCROIHeads`.
    """
    return ShapeSpec(channels=pathway_channels * (3 if global_context else 2))


class MNCOutputLayers(FastRCNNOutputLayers):
    """The categorising stage (Section 3.3): Detectron2's output layers with a second classifier.

    `cls_score` classifies an instance by its box and mask, `box_cls_score` classifies the box (at
    inference, for `test_output="boxes"` only), and `bbox_pred` refines the box for each class. All
    three see the features of both pathways.
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
        """Return mask-level and box-level logits (R, K + 1), background last, and deltas (R, 4 K).

        Args:
            x: (R, C), the joined features of the pathways.
        """
        scores, deltas = super().forward(x)
        return scores, self.box_cls_score(x.flatten(1)), deltas

    def losses(
        self,
        predictions: tuple[Tensor, Tensor, Tensor],
        proposals: list[Instances],
        mask_classes: Tensor,
    ) -> dict[str, Tensor]:
        """Return the losses of both classifiers and of the boxes.

        Args:
            predictions: of `forward`.
            proposals: as for `FastRCNNOutputLayers`; their "gt_classes" are the box-level classes.
            mask_classes: (R,), the mask-level classes; K is the background. `UNKNOWN` ones are left
                out of the mask-level loss.

        Returns:
            "loss_cls" (mask level), "loss_box_cls" (box level) and "loss_box_reg".
        """
        scores, box_scores, deltas = predictions
        losses = super().losses((box_scores, deltas), proposals)
        losses["loss_box_cls"] = losses.pop("loss_cls")
        is_known = mask_classes != UNKNOWN
        if self.use_sigmoid_ce:
            loss = self.sigmoid_cross_entropy_loss(scores[is_known], mask_classes[is_known])
            loss = loss + 0 * scores.sum()  # Detectron2's has no gradient if no class is known
        else:
            total = cross_entropy(scores, mask_classes, reduction="sum", ignore_index=UNKNOWN)
            loss = total / is_known.sum().clamp(min=1)
        losses["loss_cls"] = loss * self.loss_weight.get("loss_cls", 1.0)
        return losses


@ROI_BOX_HEAD_REGISTRY.register()
class Res5Head(nn.Module):
    """The last stage of a ResNet as a box head: res5 with stride 2, and the mean over its cells."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        bottleneck_channels: int = 512,
        num_groups: int = 1,
        norm: str = "FrozenBN",
        stride_in_1x1: bool = False,
    ):
        """
        Args:
            input_shape: channels of res4; this head has twice as many.
            bottleneck_channels, num_groups, norm, stride_in_1x1: those of the ResNet.
        """
        super().__init__()
        self.res5 = nn.Sequential(
            *ResNet.make_stage(
                BottleneckBlock,
                3,
                stride_per_block=[2, 1, 1],
                in_channels=input_shape.channels,
                bottleneck_channels=bottleneck_channels,
                out_channels=2 * input_shape.channels,
                num_groups=num_groups,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
            )
        )
        self.output_shape = ShapeSpec(channels=2 * input_shape.channels)

    @classmethod
    def from_config(cls, cfg, input_shape):
        resnets = cfg.MODEL.RESNETS
        return {
            "input_shape": input_shape,
            "bottleneck_channels": 8 * resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP,
            "num_groups": resnets.NUM_GROUPS,
            "norm": resnets.NORM,
            "stride_in_1x1": resnets.STRIDE_IN_1X1,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return features (R, 2 C) of RoI features (R, C, h, w)."""
        return self.res5(x).mean(dim=(2, 3))
