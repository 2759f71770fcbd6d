"""HTC, ResNet-101-FPN, deformable convolutions in res3 to res5 (c3-c5), 20 epochs."""

from ..common.backbones.resnet import resnet_stages
from .htc_r101_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = resnet_stages(101, deform=True)
