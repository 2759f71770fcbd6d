"""Mask R-CNN with FPN, ResNet-101, 12 epochs: the baseline of mask_rcnn_r101_sfpn_1x.py.

Box and mask AP in the paper of SFPN (FPN, COCO test-dev): 39.8, 36.3.
"""

from .mask_rcnn_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "pretrained/resnet101.pth"  # see docs/configs.md
