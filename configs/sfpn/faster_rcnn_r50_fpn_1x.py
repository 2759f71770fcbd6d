"""Faster R-CNN with FPN, ResNet-50, 12 epochs: the baseline of faster_rcnn_r50_sfpn_1x.py.

Box AP in the paper of SFPN (FPN, COCO test-dev): 36.5.
"""

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco import dataloader
from ..common.models.faster_rcnn_fpn import model
from ..common.models.smooth_l1 import use_smooth_l1

use_smooth_l1(model)
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
