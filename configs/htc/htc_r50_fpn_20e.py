"""HTC, ResNet-50-FPN, 20 epochs. Published: box AP 43.3, mask AP 38.3 on COCO val2017."""

from ..common.coco_schedule import lr_multiplier_20e as lr_multiplier
from ..common.coco_schedule import max_iter_20e
from .htc_r50_fpn_1x import dataloader, model, optimizer, train

train.max_iter = max_iter_20e
