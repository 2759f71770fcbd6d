"""MNC, VGG-16, five stages, VOC 2012 with SBD's masks. Published: mAP^r 63.5 at 0.5, 41.5 at 0.7.

The training starts from torchvision's VGG-16: docs/checkpoints.md.
"""

from ..common.data.sbd import dataloader
from ..common.mnc_voc_schedule import lr_multiplier, optimizer, train
from ..common.models.mnc_vgg16 import model

train.init_checkpoint = "vgg16.pth"
