"""The pyramid of HRNetV2p (arXiv 1904.04514, Section 3.2), which MMDetection calls HRFPN.

Shapes: N images; (H, W) the size of the finest map.
"""

import math
from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from fvcore.nn import weight_init
from torch.nn import functional as F

from .timm_backbone import build_timm_backbone


class HRFPN(Backbone):
    """A pyramid from one map, for networks whose finest map has seen all others.

    All maps are resized to the finest one, concatenated and reduced by a 1x1 convolution. Average
    pooling makes the coarser levels; a 3x3 convolution follows on each level.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int = 256,
        num_levels: int = 5,
    ):
        """
        Args:
            bottom_up: the network, such as `TimmBackbone("hrnet_w32", feature_location="")`.
            in_features: its maps, the finest first. Each stride is twice the one before.
            out_channels: channels of all levels.
            num_levels: the number of levels. With a finest map of stride 4, they are p2 to p6.

        Raises:
            ValueError: if the strides of `in_features` do not double from map to map.
        """
        super().__init__()
        shapes = [bottom_up.output_shape()[feature] for feature in in_features]
        strides = [shape.stride for shape in shapes]
        if strides != [strides[0] * 2**i for i in range(len(strides))]:
            raise ValueError(f"The strides of {list(in_features)} are {strides}; each must double")
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self.reduction_conv = Conv2d(
            sum(shape.channels for shape in shapes), out_channels, kernel_size=1
        )
        weight_init.c2_xavier_fill(self.reduction_conv)
        first = int(math.log2(strides[0]))
        levels = range(first, first + num_levels)
        for level in levels:
            conv = Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
            weight_init.c2_xavier_fill(conv)
            self.add_module(f"fpn_output{level}", conv)
        self._out_features = [f"p{level}" for level in levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = max(strides)

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest map of the network."""
        return self._size_divisibility

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return maps (N, out_channels, H / 2^i, W / 2^i), finest first, for images (N, 3, ...).

        Sizes are rounded down.
        """
        maps = self.bottom_up(x)
        finest, *coarser = (maps[feature] for feature in self.in_features)
        # By factors instead of sizes: the maps are aligned, whatever is left at their borders.
        resized = [
            F.interpolate(map_, scale_factor=2.0**i, mode="bilinear")
            for i, map_ in enumerate(coarser, start=1)
        ]
        reduced = self.reduction_conv(torch.cat([finest, *resized], dim=1))
        return {
            name: self.get_submodule(f"fpn_output{name[1:]}")(
                F.avg_pool2d(reduced, kernel_size=2**i) if i else reduced
            )
            for i, name in enumerate(self._out_features)
        }


@BACKBONE_REGISTRY.register()
def build_timm_hrfpn_backbone(cfg, input_shape: ShapeSpec) -> HRFPN:
    """Build an `HRFPN` on an HRNet of timm, MODEL.TIMM.NAME, from MODEL.TIMM and MODEL.FPN."""
    fpn = cfg.MODEL.FPN
    return HRFPN(
        bottom_up=build_timm_backbone(cfg, input_shape, feature_location=""),
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
    )
