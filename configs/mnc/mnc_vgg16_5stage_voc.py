"""MNC, VGG-16, five stages, VOC 2012 with SBD's masks. Published: mAP^r 63.5 at 0.5, 41.5 at 0.7.

torchvision's VGG-16 gives its initial weights (docs/checkpoints.md).
"""

from ..common.data.sbd import dataloader
from ..common.models.mnc_vgg16 import model
from ..common.schedule_mnc_voc import lr_multiplier, optimizer, train

train.init_checkpoint = "vgg16.pth"
