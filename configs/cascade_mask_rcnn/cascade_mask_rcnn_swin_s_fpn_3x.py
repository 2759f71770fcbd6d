"""Cascade Mask R-CNN, Swin-S-FPN, 36 epochs.

Published: box AP 51.9, mask AP 45.0 on COCO val2017.
"""

from ..common.backbones.swin import swin_weights, use_swin
from .cascade_mask_rcnn_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

use_swin(model, "S")
train.init_checkpoint = swin_weights("S")
