"""Mask R-CNN with SFPN on the toy scenes."""

from detectron2.model_zoo import get_config

from hybrid_cascade import use_semantic_pyramid

from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

model = get_config("common/models/mask_rcnn_fpn.py").model
use_semantic_pyramid(model)
make_toy(model)
