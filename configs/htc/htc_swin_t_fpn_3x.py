"""HTC, Swin-T-FPN, 36 epochs, images of 480 to 800 pixels as for Swin's Cascade Mask R-CNN."""

from ..common.backbones.swin import swin_optimizer, swin_weights, use_swin
from ..common.coco_schedule import lr_multiplier_3x as lr_multiplier
from ..common.coco_schedule import max_iter_3x
from ..common.data.coco_stuff import dataloader
from ..common.models.htc_fpn import model
from ..common.train import train

use_swin(model, "T")
optimizer = swin_optimizer()
train.max_iter = max_iter_3x
train.init_checkpoint = swin_weights("T")
dataloader.train.mapper.augmentations[0].short_edge_length = tuple(range(480, 801, 32))
