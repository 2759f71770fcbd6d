"""MNC, ZF net, trained with three stages, tested with five. Published: mAP^r 53.5 at IoU 0.5."""

from .mnc_zf_5stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.num_stages = 3
model.roi_heads.test_stages = 5
