"""Cascade R-CNN with FPN, ResNet-101, 12 epochs: the baseline of cascade_rcnn_r101_sfpn_1x.py.

Box AP in the paper of SFPN (FPN, COCO test-dev): 42.4.
"""

from ..common.models.cascade_rcnn_fpn import model
from .faster_rcnn_r101_fpn_1x import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.stages.depth = 101
