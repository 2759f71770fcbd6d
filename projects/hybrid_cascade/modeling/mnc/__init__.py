"""Multi-task Network Cascades."""

from .heads import MNCMaskHead
from .image_masks import ImageMasks
from .mask_voting import mask_voting
from .output_layers import MNCOutputLayers
from .res5_head import Res5Head
from .roi_heads import MNCROIHeads
from .rpn import RPNWithBoxGradients

__all__ = [
    "ImageMasks",
    "MNCMaskHead",
    "MNCOutputLayers",
    "MNCROIHeads",
    "RPNWithBoxGradients",
    "Res5Head",
    "mask_voting",
]
