"""HTC, HRNetV2p-W32, 20 epochs. `use_hrnet` has the widths 18 and 40 too.

Published by MMDetection: box AP 45.4, mask AP 39.9 on COCO val2017.
`model.backbone.bottom_up.checkpoint_path=FILE` loads timm's ImageNet weights (hrnet_w32).
"""

from ..common.backbones.timm import use_hrnet
from .htc_r50_fpn_20e import dataloader, lr_multiplier, model, optimizer, train

use_hrnet(model, 32)
train.init_checkpoint = ""
