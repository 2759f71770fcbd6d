"""Mask R-CNN with SFPN, ResNet-50, 12 epochs. It needs COCO's instances only.

Box and mask AP on COCO test-dev in the paper, with FPN and with SFPN: 37.5 and 34.4, 39.3 and 35.8.
"""

from hybrid_cascade import use_semantic_pyramid

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"

use_semantic_pyramid(model, source="instances")
