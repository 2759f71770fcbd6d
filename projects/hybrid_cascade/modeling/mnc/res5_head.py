"""The last stage of a ResNet as a box head, as in Faster R-CNN's C4 models."""

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import Tensor, nn


@ROI_BOX_HEAD_REGISTRY.register()
class Res5Head(nn.Module):
    """res5 with stride 2, and the mean of what it computes."""

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
            input_shape: channels of res4, half of this head's.
            bottleneck_channels, num_groups, norm, stride_in_1x1: as of the ResNet.
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
        """RoI features (R, C, h, w) to (R, 2 C)."""
        return self.res5(x).mean(dim=(2, 3))
