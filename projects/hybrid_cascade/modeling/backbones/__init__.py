"""Backbones that Detectron2 lacks."""

from .hrfpn import HRFPN, build_timm_hrfpn_backbone
from .separate_backbones import SeparateBackbones
from .ssd_vgg import SSDVGG16
from .timm_backbone import TimmBackbone, build_timm_fpn_backbone
from .vgg import VGG16, build_vgg16_backbone
from .zf import ZF, build_zf_backbone

__all__ = [
    "HRFPN",
    "SSDVGG16",
    "SeparateBackbones",
    "TimmBackbone",
    "VGG16",
    "ZF",
    "build_timm_fpn_backbone",
    "build_timm_hrfpn_backbone",
    "build_vgg16_backbone",
    "build_zf_backbone",
]
