"""HTC, ResNeXt-101-64x4d-FPN, deformable convolutions in res3 to res5 (c3-c5), scales 400 to 1400.

Published: box AP 50.4, mask AP 43.8 on COCO val2017. Needs nothing compiled.
"""

from hybrid_cascade.layers.deform_conv import DeformBottleneckBlock

from .htc_x101_64x4d_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

for stage in model.backbone.bottom_up.stages[1:]:
    stage.block_class = DeformBottleneckBlock
    stage.deform_modulated = False
    stage.deform_num_groups = 1

resize = dataloader.train.mapper.augmentations[0]
resize.update(short_edge_length=(400, 1400), max_size=1600, sample_style="range")
