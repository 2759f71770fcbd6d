"""MNC, VGG-16, three stages. Published: mAP^r 62.6 at IoU 0.5, trained end to end; 60.5 with shared
features and detached boxes (`model.roi_heads.end_to_end=False`)."""

from .mnc_vgg16_5stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.num_stages = 3
