"""The convolutional layers of VGG-16 (arXiv 1409.1556, configuration D) as a backbone.

Shapes: N images of H x W pixels; C channels of a block.
"""

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch.nn import functional as F

# Convolutions of each block; a max pooling separates the blocks.
_CONVS_PER_BLOCK = (2, 2, 3, 3, 3)


class VGG16(Backbone):
    """VGG-16 without its last pooling and fully connected layers.

    Layers and their parameters have Caffe's names: `conv1_1.weight` to `conv5_3.bias`. A feature
    has the name of a layer and is its output after the ReLU. Strides of the five blocks are 1, 2,
    4, 8 and 16.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        out_features: Sequence[str] = ("conv5_3",),
        freeze_at: int = 2,
    ):
        """
        Args:
            in_channels: channels of the image.
            channels: C of each block.
            out_features: names of layers. Layers after the last of them are not built.
            freeze_at: the number of blocks that are frozen, counted from the first. MNC freezes
                conv1 and conv2.

        Raises:
            ValueError: if `out_features` is empty or has an unknown name, or if `freeze_at` is not
                in [0, 5].
        """
        super().__init__()
        self._blocks = [
            [f"conv{block}_{number}" for number in range(1, convs + 1)]
            for block, convs in enumerate(_CONVS_PER_BLOCK, start=1)
        ]
        layers = [layer for block in self._blocks for layer in block]
        unknown = [feature for feature in out_features if feature not in layers]
        if unknown or not out_features:
            raise ValueError(f"out_features={list(out_features)}: choose of {layers}")
        last = max(map(layers.index, out_features))
        self._out_features = list(out_features)
        self._out_feature_channels = {}
        self._out_feature_strides = {}
        for index, (block, out_channels) in enumerate(zip(self._blocks, channels, strict=True)):
            block[:] = [layer for layer in block if layers.index(layer) <= last]
            for layer in block:
                conv = Conv2d(
                    in_channels, out_channels, kernel_size=3, padding=1, activation=F.relu
                )
                weight_init.c2_msra_fill(conv)
                self.add_module(layer, conv)
                self._out_feature_channels[layer] = out_channels
                self._out_feature_strides[layer] = 2**index
                in_channels = out_channels
        self.freeze(freeze_at)

    def freeze(self, freeze_at: int = 0) -> "VGG16":
        """Freeze the first `freeze_at` blocks, and return the backbone.

        Raises:
            ValueError: if `freeze_at` is not in [0, 5].
        """
        if not 0 <= freeze_at <= len(self._blocks):
            raise ValueError(f"freeze_at={freeze_at} is not in [0, {len(self._blocks)}]")
        for layer in sum(self._blocks[:freeze_at], []):
            self.get_submodule(layer).requires_grad_(False)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return maps (N, C, ceil(H / stride), ceil(W / stride)) by name for images (N, 3, H, W).

        Sizes are rounded up as in Caffe, with which MNC was published. torchvision rounds down.
        """
        features = {}
        for index, block in enumerate(self._blocks):
            if index > 0 and block:
                x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
            for layer in block:
                x = features[layer] = self.get_submodule(layer)(x)
        return {feature: features[feature] for feature in self._out_features}


@BACKBONE_REGISTRY.register()
def build_vgg16_backbone(cfg, input_shape: ShapeSpec) -> VGG16:
    """Build a `VGG16` from MODEL.VGG.OUT_FEATURES and MODEL.BACKBONE.FREEZE_AT."""
    return VGG16(
        in_channels=input_shape.channels,
        out_features=cfg.MODEL.VGG.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
