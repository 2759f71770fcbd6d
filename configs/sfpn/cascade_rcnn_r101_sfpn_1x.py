"""Cascade R-CNN with SFPN, ResNet-101, 12 epochs.

Box AP on COCO test-dev in the paper, with FPN and with SFPN: 42.4, 43.5.
"""

from hybrid_cascade import use_semantic_pyramid

from ..common.models.cascade_rcnn_fpn import model
from .faster_rcnn_r101_sfpn_1x import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.stages.depth = 101
use_semantic_pyramid(model, source="instances")
