"""HTC, ResNet-50-FPN, 12 epochs. Published: box AP 42.3, mask AP 37.4 on COCO val2017."""

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco_stuff import dataloader
from ..common.models.htc_fpn import model

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
