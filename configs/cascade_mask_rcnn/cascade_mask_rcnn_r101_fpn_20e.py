"""Cascade Mask R-CNN, ResNet-101-FPN, 20 epochs."""

from ..common.schedule_20e import lr_multiplier, max_iter
from .cascade_mask_rcnn_r50_fpn_1x import dataloader, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "pretrained/resnet101.pth"  # see docs/configs.md
train.max_iter = max_iter
