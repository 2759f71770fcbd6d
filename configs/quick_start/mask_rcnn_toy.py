"""Detectron2's Mask R-CNN on the toy scenes, for comparison."""

from ..common.models.mask_rcnn_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

make_toy(model)
