"""Names of layers: how our models name them, and how ResNet's and VGG-16's translate to that."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

# torchvision's and MMDetection's names of the parameters of a ResNet.
_RESNET_NAME = re.compile(
    r"(?:layer(?P<layer>\d)\.(?P<block>\d+)\.)?"
    r"(?P<module>conv\d|[bg]n\d|downsample\.[01]|conv2\.conv_offset|conv2_offset)\.(?P<what>\w+)"
)
_RESNET_MODULES = {
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
    # The offsets of deformable convolutions; MMDetection's older files have Detectron2's name.
    "conv2.conv_offset": "conv2_offset",
}
# Why FC6 and FC7 of a VGG-16 are not used, where `Layout.vgg_heads` is empty.
NO_VGG_HEAD = "no RoI head of this model has the size of VGG-16's FC6 and FC7"


@dataclass(frozen=True)
class Layout:
    """The structure of one of our models, as far as names of parameters depend on it.

    The defaults describe a cascade of three stages on a feature pyramid.

    Attributes:
        bottom_ups: prefixes of the ResNets or VGGs that get the weights of a backbone:
            "backbone.bottom_up." under a pyramid, "backbone." without one, and one prefix for each
            of `SeparateBackbones`.
        stages: T, the number of box stages of the cascade; 0 if the model is no cascade.
        vgg_heads: prefixes of the RoI heads whose fc1 and fc2 have the sizes of VGG-16's fully
            connected layers FC6 and FC7.
        timm: whether the bottom-up networks are `TimmBackbone`s.
    """

    bottom_ups: tuple[str, ...] = ("backbone.bottom_up.",)
    stages: int = 3
    vgg_heads: tuple[str, ...] = ()
    timm: bool = False

    @classmethod
    def of(cls, target: Mapping[str, torch.Tensor]) -> "Layout":
        """Return the layout of the model with this state dict."""
        prefix = re.compile(r"backbone\.(backbones\.\w+\.|bottom_up\.)")
        bottom_ups = dict.fromkeys(m[0] for m in map(prefix.match, target) if m) or ["backbone."]
        stages = {m[1] for m in (re.match(r"roi_heads\.box_head\.(\d+)\.", n) for n in target) if m}
        vgg_heads = (
            name.removesuffix("fc1.weight")
            for name, tensor in target.items()
            if re.fullmatch(r"roi_heads\.(box|masked)_head\.fc1\.weight", name)
            and tensor.shape == (4096, 512 * 7 * 7)
        )
        timm = any(
            name.startswith(f"{bottom_up}net.") for bottom_up in bottom_ups for name in target
        )
        return cls(tuple(bottom_ups), len(stages), tuple(vgg_heads), timm)


def resnet_names(name: str, layout: Layout) -> list[str]:
    """Return our names of a parameter of a ResNet; [] if it is not one of its convolutional layers.

    Args:
        name: torchvision's or MMDetection's name. "layer1.0.bn2.bias" becomes
            "res2.0.conv2.norm.bias", and "conv1.weight" becomes "stem.conv1.weight".
        layout: the layout of the model, which gives the prefixes.
    """
    match = _RESNET_NAME.fullmatch(name)
    if match is None:
        return []
    layer, block, module, what = match.group("layer", "block", "module", "what")
    stage = f"res{int(layer) + 1}.{block}" if layer else "stem"
    module = _RESNET_MODULES.get(module) or re.sub(r"^[bg]n(\d)$", r"conv\1.norm", module)
    return [f"{prefix}{stage}.{module}.{what}" for prefix in layout.bottom_ups]


def vgg_names(name: str, layout: Layout) -> list[str]:
    """Return our names of a parameter of VGG-16 or ZF; [] if no layer of the model is for it.

    Args:
        name: Caffe's name. Convolutions ("conv3_1.weight", ZF's "conv3.weight") go to the backbone,
            "fc6" and "fc7" to fc1 and fc2 of each RoI head of that size.
        layout: the layout of the model, which gives the prefixes.
    """
    layer, _, what = name.rpartition(".")
    if re.fullmatch(r"conv[1-5](_[1-3])?", layer):
        return [f"{prefix}{layer}.{what}" for prefix in layout.bottom_ups]
    if layer in ("fc6", "fc7"):
        return [f"{head}fc{int(layer[2]) - 5}.{what}" for head in layout.vgg_heads]
    return []
