"""HTC, ResNeXt-101-32x4d-FPN, 20 epochs. Published: box AP 46.1, mask AP 40.5 on COCO val2017."""

from ..common.backbones.resnet import resnet_stages
from .htc_r50_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = resnet_stages(101, num_groups=32, width_per_group=4)
train.init_checkpoint = "pretrained/resnext101_32x4d.pth"  # see docs/configs.md
