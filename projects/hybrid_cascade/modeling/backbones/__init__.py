"""Backbones that Detectron2 lacks."""

from .separate import SeparateBackbones
from .vgg import VGG16, build_vgg16_backbone
from .zf import ZF, build_zf_backbone

__all__ = ["SeparateBackbones", "VGG16", "ZF", "build_vgg16_backbone", "build_zf_backbone"]
