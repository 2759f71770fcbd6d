"""MNC, three stages, each with its own VGG-16. Published: mAP^r 60.2 at IoU 0.5.

The stages are trained one after the other: docs/mnc.md has the commands.
"""

from ..common.models.mnc_separate_features import use_separate_features
from .mnc_vgg16_3stage_voc import dataloader, lr_multiplier, model, optimizer, train

use_separate_features(model)
train.init_checkpoint = "vgg16_separate_features.pth"
