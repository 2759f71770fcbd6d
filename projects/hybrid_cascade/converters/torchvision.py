"""torchvision's classification weights (ResNet, ResNeXt, VGG-16) as backbones.

The fully connected layers of VGG-16 also seed the RoI heads that have them (MNC's two pathways).

Weights of other projects under torchvision's names, such as MMDetection's pretrained ResNeXts, are
the same to us.
"""

import re
from collections.abc import Mapping

import torch

from .conversion import Layout, Source
from .preprocessing import TORCHVISION
from .resnet import resnet_name
from .vgg import NO_SUCH_HEAD, vgg_names

# Caffe's names of VGG-16's layers: its convolutions, block by block, then the first two of the
# fully connected ones. What follows each of those in `classifier` is a ReLU and a dropout.
_VGG16 = {
    f"features.{index}": f"conv{block}_{number}"
    for block, indices in enumerate(
        [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)], start=1
    )
    for number, index in enumerate(indices, start=1)
} | {"classifier.0": "fc6", "classifier.3": "fc7"}


def _rename(name: str, layout: Layout) -> list[str]:
    if new_name := resnet_name(name):
        return [prefix + new_name for prefix in layout.bottom_ups]
    layer, _, what = name.rpartition(".")
    return vgg_names(_VGG16.get(layer, ""), what, layout)


def refuse_other_vggs(state_dict: Mapping[str, torch.Tensor]) -> None:
    """Raise a ValueError for VGGs of another depth, or with batch norm."""
    if "features.1.running_mean" in state_dict:
        raise ValueError("This is a VGG with batch norm; the backbone here is torchvision's vgg16")
    depth = sum(1 for name in state_dict if re.fullmatch(r"features\.\d+\.weight", name))
    if depth not in (0, 13):
        raise ValueError(f"This is a VGG with {depth} convolutions; VGG-16 has 13")


TORCHVISION_WEIGHTS = Source(
    title="torchvision",
    rename=_rename,
    left_out={
        r"^classifier\.[03]\.": NO_SUCH_HEAD,
        r"^(fc|classifier)\.": "the classification layers",
    },
    # Offsets of deformable convolutions start at zero, which makes them ordinary ones.
    must_fill=r"backbone\.(?!fpn_)(?!.*conv2_offset)",
    preprocessing=(TORCHVISION,),
    refuse=refuse_other_vggs,
)
