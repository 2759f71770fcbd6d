"""Faster R-CNN with SFPN, ResNet-101, 12 epochs.

Box AP on COCO test-dev in the paper, with FPN and with SFPN: 38.9, 40.3.
"""

from .faster_rcnn_r50_sfpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "pretrained/resnet101.pth"  # see docs/configs.md
