"""HTC, ResNeXt-101-64x4d-FPN, deformable convolutions in res3 to res5 (c3-c5), 20 epochs.

Images have short sides of 400 to 1400 pixels. Published: box AP 50.4, mask AP 43.8 on COCO val2017.
The convolutions are torchvision's, so nothing has to be compiled.
"""

from ..common.backbones.resnet import resnet_stages
from .htc_x101_64x4d_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = resnet_stages(101, num_groups=64, width_per_group=4, deform=True)

resize = dataloader.train.mapper.augmentations[0]
resize.update(short_edge_length=(400, 1400), max_size=1600, sample_style="range")
