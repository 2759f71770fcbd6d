"""MNC, VGG-16, three stages. Published: mAP^r 62.6 at IoU 0.5.

Without gradients through the boxes (`model.roi_heads.end_to_end=False`): mAP^r 60.5.
"""

from .mnc_vgg16_5stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.num_stages = 3
