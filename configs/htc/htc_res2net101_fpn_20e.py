"""HTC, Res2Net-101-FPN, 20 epochs.

Published by MMDetection: box AP 47.5, mask AP 41.6 on COCO val2017.
`model.backbone.bottom_up.checkpoint_path=FILE` loads timm's ImageNet weights (res2net101d).
"""

from ..common.backbones.timm import use_res2net101
from .htc_r50_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

use_res2net101(model)
train.init_checkpoint = ""
