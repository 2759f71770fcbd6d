"""The network of Zeiler and Fergus (arXiv 1311.2901), in the "fast" version of Faster R-CNN.

Sizes, paddings and the normalization are those of ZF/faster_rcnn_end2end in py-faster-rcnn.

Shapes: N images of H x W pixels; a map of h x w cells.
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch.nn import functional as F


class ZF(Backbone):
    """Five convolutions. The only feature is "conv5", with 256 channels and stride 16.

    Layers and their parameters have Caffe's names: `conv1.weight` to `conv5.bias`.
    """

    def __init__(self, *, in_channels: int = 3, freeze_at: int = 0):
        """
        Args:
            in_channels: channels of the image.
            freeze_at: the number of convolutions that are frozen, counted from the first. The
                published networks freeze none.

        Raises:
            ValueError: if `freeze_at` is not in [0, 5].
        """
        super().__init__()
        self._out_features = ["conv5"]
        self._out_feature_channels = {"conv5": 256}
        self._out_feature_strides = {"conv5": 16}
        self.conv1 = Conv2d(in_channels, 96, 7, stride=2, padding=3, activation=F.relu)
        self.conv2 = Conv2d(96, 256, 5, stride=2, padding=2, activation=F.relu)
        self.conv3 = Conv2d(256, 384, 3, padding=1, activation=F.relu)
        self.conv4 = Conv2d(384, 384, 3, padding=1, activation=F.relu)
        self.conv5 = Conv2d(384, 256, 3, padding=1, activation=F.relu)
        for conv in self.children():
            weight_init.c2_msra_fill(conv)
        self.freeze(freeze_at)

    def freeze(self, freeze_at: int = 0) -> "ZF":
        """Freeze the first `freeze_at` convolutions, and return the backbone.

        Raises:
            ValueError: if `freeze_at` is not in [0, 5].
        """
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"freeze_at={freeze_at} is not in [0, 5]")
        for conv in list(self.children())[:freeze_at]:
            conv.requires_grad_(False)
        return self

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {"conv5": (N, 256, h, w)} for images (N, 3, H, W).

        Poolings round up as in Caffe: h = ceil((H - 6) / 16) + 1, and w accordingly.
        """
        for conv in (self.conv1, self.conv2):
            x = normalize_within_channel(conv(x))
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1, ceil_mode=True)
        return {"conv5": self.conv5(self.conv4(self.conv3(x)))}


def normalize_within_channel(
    x: torch.Tensor, size: int = 3, alpha: float = 5e-5, beta: float = 0.75
) -> torch.Tensor:
    """Divide by (1 + alpha * mean)^beta, the local response normalization within each channel.

    It is Caffe's LRN layer with norm_region: WITHIN_CHANNEL. `torch.nn.LocalResponseNorm` is the
    normalization across channels.

    Args:
        x: maps (N, C, h, w).
        size: the mean is that of the squares of size x size cells around a cell. Cells outside the
            map are zeros.
        alpha, beta: see above.
    """
    # Squares of activations can exceed the range of float16.
    mean_square = F.avg_pool2d(x.float().square(), size, stride=1, padding=size // 2)
    return x * (1 + alpha * mean_square).pow(-beta).to(x.dtype)


@BACKBONE_REGISTRY.register()
def build_zf_backbone(cfg, input_shape: ShapeSpec) -> ZF:
    """Build a `ZF` from MODEL.BACKBONE.FREEZE_AT: 2 by default, 0 in the published networks."""
    return ZF(in_channels=input_shape.channels, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
