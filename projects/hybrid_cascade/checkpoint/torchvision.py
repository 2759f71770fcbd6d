"""torchvision's classification weights (ResNet, ResNeXt, VGG-16) as backbones.

Weights of other projects under torchvision's names, such as MMDetection's pretrained ResNeXts, are
the same to us.
"""

import re
from collections.abc import Mapping

import torch

from .conversion import Layout, Source
from .preprocessing import TORCHVISION
from .resnet import resnet_name

# Where VGG-16's convolutions are in torchvision's `features`, block by block.
_VGG16 = {
    f"features.{index}": f"conv{block}_{number}"
    for block, indices in enumerate(
        [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)], start=1
    )
    for number, index in enumerate(indices, start=1)
}


def _rename(name: str, layout: Layout) -> list[str]:
    new_name = resnet_name(name)
    if new_name is None:
        layer, _, what = name.rpartition(".")
        new_name = f"{_VGG16[layer]}.{what}" if layer in _VGG16 else None
    return [layout.bottom_up + new_name] if new_name else []


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
    left_out={r"^(fc|classifier)\.": "the classification layers"},
    # Offsets of deformable convolutions start at zero, which makes them ordinary ones.
    must_fill=r"backbone\.(?!fpn_)(?!.*conv2_offset)",
    preprocessing=(TORCHVISION,),
    refuse=refuse_other_vggs,
)
