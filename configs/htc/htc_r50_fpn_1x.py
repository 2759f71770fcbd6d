"""HTC, ResNet-50-FPN, 12 epochs. Published: box AP 42.3, mask AP 37.4 on COCO val2017."""

from detectron2.model_zoo import get_config

from ..common.data.coco_stuff import dataloader
from ..common.models.htc_fpn import model
from ..common.train import train

optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
