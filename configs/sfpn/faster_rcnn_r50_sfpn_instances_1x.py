"""Faster R-CNN with SFPN, ResNet-50, 12 epochs, on label maps painted from COCO's instances.

It needs no label maps of stuff. There are no published figures for it.
"""

from hybrid_cascade import use_semantic_pyramid

from .faster_rcnn_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

use_semantic_pyramid(model, source="instances")
