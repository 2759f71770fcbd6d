"""HTC, ResNet-101-FPN, 20 epochs. Published: box AP 44.8, mask AP 39.6 on COCO val2017."""

from .htc_r50_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "pretrained/resnet101.pth"  # see docs/configs.md
