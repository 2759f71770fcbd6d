"""Mask R-CNN with SFPN on the toy scenes."""

from hybrid_cascade import use_semantic_pyramid

from ..common.models.mask_rcnn_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

use_semantic_pyramid(model)
make_toy(model)
