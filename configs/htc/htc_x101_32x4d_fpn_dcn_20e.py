"""HTC, ResNeXt-101-32x4d-FPN, deformable convolutions in res3 to res5 (c3-c5), 20 epochs."""

from ..common.backbones.resnet import resnet_stages
from .htc_x101_32x4d_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = resnet_stages(101, num_groups=32, width_per_group=4, deform=True)
