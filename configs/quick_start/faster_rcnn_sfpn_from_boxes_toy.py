"""Faster R-CNN with SFPN on the toy scenes without masks: boxes are painted into label maps."""

from .faster_rcnn_sfpn_toy import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.mapper.use_instance_mask = False
model.semantic_targets.source = "instances"
