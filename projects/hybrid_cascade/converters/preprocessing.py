"""The images that a set of weights expects: order of the channels, mean, deviation; the stride."""

from dataclasses import dataclass

import torch
from detectron2.layers import CNNBlockBase
from torch import nn


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a set of weights, and where its ResNet has its strides.

    Attributes:
        image_format: "RGB" or "BGR".
        pixel_mean, pixel_std: per channel, of values 0 to 255.
        stride_in_1x1: whether the bottlenecks of the ResNet have their stride in the first 1x1
            convolution instead of the 3x3 convolution. It changes no shape: a checkpoint for the
            other kind loads, and the model computes something else. None for other networks.
    """

    image_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    stride_in_1x1: bool | None

    def fits(self, model: nn.Module) -> bool:
        """Return whether a model (such as `GeneralizedRCNN`) prepares its images like this."""
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (self.pixel_mean, self.pixel_std))
        return (
            torch.allclose(model.pixel_mean.cpu().float(), mean)
            and torch.allclose(model.pixel_std.cpu().float(), std)
            and model.input_format == self.image_format
            and all((b.conv1.stride != (1, 1)) == self.stride_in_1x1 for b in _strided(model))
        )

    def overrides(self, yaml: bool = False, model: nn.Module | None = None) -> str:
        """Return the overrides on the command line with which a config prepares images like this.

        Args:
            yaml: for a CfgNode instead of a LazyConfig.
            model: the model of the config, if it is known. The stride is left out if the model has
                none, as it is for weights that are not of a ResNet.
        """
        mean, std = (str(list(x)).replace(" ", "") for x in (self.pixel_mean, self.pixel_std))
        if yaml:
            stride = f" MODEL.RESNETS.STRIDE_IN_1X1 {self.stride_in_1x1}"
            images = (
                f'INPUT.FORMAT {self.image_format} MODEL.PIXEL_MEAN "{mean}" '
                f'MODEL.PIXEL_STD "{std}"'
            )
        else:
            stride = f" model.backbone.bottom_up.stages.stride_in_1x1={self.stride_in_1x1}"
            images = (
                f'model.input_format={self.image_format} "model.pixel_mean={mean}" '
                f'"model.pixel_std={std}" dataloader.train.mapper.image_format={self.image_format}'
            )
        has_stride = self.stride_in_1x1 is not None and (model is None or _strided(model))
        return images + stride if has_stride else images


def _strided(model: nn.Module) -> list[nn.Module]:
    """Return the bottlenecks of a ResNet that halve the size of the map."""
    return [
        block
        for block in model.modules()
        if isinstance(block, CNNBlockBase) and block.stride == 2 and hasattr(block, "conv3")
    ]


# torchvision's classification weights; MMDetection calls them style="pytorch".
TORCHVISION = Preprocessing("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False)
# MSRA's ResNets: Detectron2's R50 and R101; MMDetection calls them style="caffe".
MSRA = Preprocessing("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), True)
# Caffe's VGG-16 and ZF, as py-faster-rcnn and MNC use them.
CAFFE = Preprocessing("BGR", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), None)
# Detectron2's ResNeXt-101 and its new baselines.
DETECTRON2_STD = Preprocessing("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), False)
# torchvision's SSD300, and its vgg16 with the weights IMAGENET1K_FEATURES.
SSD_VGG16 = Preprocessing("RGB", (122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0), None)
