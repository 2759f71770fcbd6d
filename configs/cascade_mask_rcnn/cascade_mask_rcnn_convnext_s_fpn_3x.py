"""Cascade Mask R-CNN, ConvNeXt-S-FPN, 36 epochs.

Published by MMDetection: box AP 51.8, mask AP 44.8 on COCO val2017.
"""

from ..common.backbones.timm import use_convnext
from .cascade_mask_rcnn_convnext_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

use_convnext(model, "S")
