"""Detectron2's Faster R-CNN on the toy scenes, for comparison."""

from ..common.models.faster_rcnn_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

make_toy(model)
