"""MNC, VGG-16, trained with three stages, tested with five, as in the paper.

Published: mAP^r 62.6 at IoU 0.5.
"""

from .mnc_vgg16_5stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.num_stages = 3
model.roi_heads.test_stages = 5
