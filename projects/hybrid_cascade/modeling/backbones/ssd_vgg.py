"""VGG-16 with the extra layers of SSD (arXiv 1512.02325, Fig. 2 and footnote 5)."""

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from fvcore.nn import weight_init
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG
from torchvision.models.vgg import cfgs, make_layers


@BACKBONE_REGISTRY.register()
class SSDVGG16(SSDFeatureExtractorVGG, Backbone):
    """torchvision's VGG-16 for SSD as a Detectron2 backbone; its parameters keep their names.

    Names of the maps, their channels, and their sides for images of 300 x 300 pixels:

        conv4_3   512   38   (scaled to a norm that is learned and starts at 20)
        fc7      1024   19
        conv8_2   512   10
        conv9_2   256    5
        conv10_2  256    3
        conv11_2  256    1

    With `highres`, for images of 512 x 512 pixels, sides are 64, 32, 16, 8, 4 and 2, and there is
    conv12_2 with 256 channels and side 1.
    """

    @configurable
    def __init__(self, *, highres: bool = False, freeze_at: int = 1):
        """
        Args:
            highres: build the layers of SSD512 instead of those of SSD300.
            freeze_at: the number of VGG's blocks that are frozen, counted from the first, 0 to 5.

        Raises:
            ValueError: if `freeze_at` is not in [0, 5].
        """
        layers = make_layers(cfgs["D"])
        ends = [0, *(i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))]
        if not 0 <= freeze_at < len(ends):
            raise ValueError(f"VGG-16 has 5 blocks of convolutions; freeze_at={freeze_at}")
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                weight_init.c2_msra_fill(layer)
        layers[: ends[freeze_at]].requires_grad_(False)
        super().__init__(layers, highres)
        self._out_feature_channels = {
            "conv4_3": 512,
            "fc7": 1024,
            "conv8_2": 512,
            "conv9_2": 256,
            "conv10_2": 256,
            "conv11_2": 256,
        }
        strides = [8, 16, 32, 64, 100, 300]
        if highres:
            self._out_feature_channels["conv12_2"] = 256
            strides = [8, 16, 32, 64, 128, 256, 512]
            # torchvision keeps SSD300's strides and paddings, and gets sides of 6, 4 and 1.
            conv10_2, conv11_2, conv12_2 = (block[2] for block in self.extra[-3:])
            conv10_2.stride = conv11_2.stride = (2, 2)
            conv10_2.padding = conv11_2.padding = conv12_2.padding = (1, 1)
        self._out_features = list(self._out_feature_channels)
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec):
        return {"highres": cfg.MODEL.SSD.VGG_HIGHRES, "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (N, C, h, w) by name, finest first, for images (N, 3, H, W)."""
        return dict(zip(self._out_features, super().forward(x).values(), strict=True))
