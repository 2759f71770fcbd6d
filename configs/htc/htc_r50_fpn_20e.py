"""HTC, ResNet-50-FPN, 20 epochs. Published: box AP 43.3, mask AP 38.3 on COCO val2017."""

from ..common.schedule_20e import lr_multiplier, max_iter
from .htc_r50_fpn_1x import dataloader, model, optimizer, train

train.max_iter = max_iter
