"""Detectron2's Mask R-CNN on the toy scenes, for comparison."""

from detectron2.model_zoo import get_config

from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

model = get_config("common/models/mask_rcnn_fpn.py").model
make_toy(model)
