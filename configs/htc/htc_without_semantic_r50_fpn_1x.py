"""HTC without its semantic branch, ResNet-50-FPN, 12 epochs. It needs COCO's instances only."""

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco import dataloader
from ..common.models.htc_without_semantic_fpn import model

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
