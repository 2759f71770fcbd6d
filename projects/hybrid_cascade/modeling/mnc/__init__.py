"""Multi-task Network Cascades (MNC, CVPR 2016, arXiv 1512.04412)."""

from .heads import MNCMaskHead, MNCOutputLayers, Res5Head, joined_pathways
from .mask_voting import ImageMasks, mask_voting
from .roi_heads import MNCROIHeads
from .rpn import RPNWithBoxGradients

__all__ = [
    "ImageMasks",
    "MNCMaskHead",
    "MNCOutputLayers",
    "MNCROIHeads",
    "RPNWithBoxGradients",
    "Res5Head",
    "joined_pathways",
    "mask_voting",
]
