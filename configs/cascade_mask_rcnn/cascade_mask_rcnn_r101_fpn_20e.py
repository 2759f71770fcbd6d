"""Cascade Mask R-CNN, ResNet-101-FPN, 20 epochs."""

from ..common.coco_schedule import lr_multiplier_20e as lr_multiplier
from ..common.coco_schedule import max_iter_20e
from .cascade_mask_rcnn_r50_fpn_1x import dataloader, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "pretrained/resnet101.pth"  # see docs/configs.md
train.max_iter = max_iter_20e
