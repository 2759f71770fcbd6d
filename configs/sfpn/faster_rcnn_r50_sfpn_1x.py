"""Faster R-CNN with SFPN, ResNet-50, 12 epochs; COCO's instances are all that it needs.

The paper's box AP on COCO test-dev, with FPN and with SFPN: 36.5, 38.3.
"""

from detectron2.model_zoo import get_config

from hybrid_cascade import use_semantic_pyramid

from ..common.data.coco import dataloader
from ..common.models.faster_rcnn_fpn import model
from ..common.train import train

optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"

use_semantic_pyramid(model, source="instances")
