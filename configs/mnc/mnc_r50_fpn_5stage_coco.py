"""MNC, ResNet-50-FPN, five stages, COCO. Results of this model have not been published.

Each box is warped from the level of the pyramid that fits its size.
"""

from detectron2.model_zoo import get_config

from hybrid_cascade import use_mnc_heads

from .mnc_r101_5stage_coco import dataloader, lr_multiplier, optimizer, train

model = get_config("common/models/mask_rcnn_fpn.py").model
model.proposal_generator.post_nms_topk = (300, 300)
use_mnc_heads(model)
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
