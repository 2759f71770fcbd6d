"""MNC, three stages, each with its own ZF net. Published: mAP^r 51.8 at IoU 0.5.

The stages are trained one after the other: docs/mnc.md has the commands.
"""

from ..common.models.mnc_separate_features import use_separate_features
from .mnc_zf_3stage_voc import dataloader, lr_multiplier, model, optimizer, train

use_separate_features(model)
train.init_checkpoint = "zf_separate_features.pth"
