"""Mask R-CNN with SFPN, ResNet-101, 12 epochs.

Box and mask AP on COCO test-dev in the paper, with FPN and with SFPN: 39.8 and 36.3, 41.1 and 37.3.
"""

from .mask_rcnn_r50_sfpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "pretrained/resnet101.pth"  # see docs/configs.md
