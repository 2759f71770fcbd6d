"""HTC, ResNet-50-FPN, deformable convolutions in res3 to res5 (c3-c5), 12 epochs."""

from ..common.backbones.resnet import resnet_stages
from .htc_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = resnet_stages(50, deform=True)
