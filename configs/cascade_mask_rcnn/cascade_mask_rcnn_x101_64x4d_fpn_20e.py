"""Cascade Mask R-CNN, ResNeXt-101-64x4d-FPN, 20 epochs."""

from ..common.backbones.resnet import resnet_stages
from .cascade_mask_rcnn_r101_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = resnet_stages(101, num_groups=64, width_per_group=4)
train.init_checkpoint = "pretrained/resnext101_64x4d.pth"  # see docs/configs.md
