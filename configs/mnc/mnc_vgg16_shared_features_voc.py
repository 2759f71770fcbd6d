"""MNC, three stages with shared features, not end to end. Published: mAP^r 60.5 at IoU 0.5.

The stages are trained one after the other: docs/mnc.md has the commands.
"""

from .mnc_vgg16_3stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.end_to_end = False
