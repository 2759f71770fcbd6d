"""Cascade Mask R-CNN, ConvNeXt-T-FPN, 36 epochs, with MMDetection's heads and augmentation.

Published by MMDetection: box AP 50.3, mask AP 43.6 on COCO val2017. docs/checkpoints.md has the
command that converts the published weights. MMDetection trains with a learning rate of 2e-4 that
decays from layer to layer; here it is Swin's, 1e-4 for all layers.
`model.backbone.bottom_up.checkpoint_path=FILE` loads timm's ImageNet weights.
"""

from ..common.backbones.timm import use_convnext
from .cascade_mask_rcnn_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

use_convnext(model, "T")
train.init_checkpoint = ""
