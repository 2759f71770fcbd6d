"""MNC, ResNet-101 with res5 as the head of both pathways, five stages, COCO.

Published on test-dev: mask AP 24.6, 44.3 at IoU 0.5. Published on test-challenge: mask AP 28.2,
51.5 at IoU 0.5, with global context (`model.roi_heads.global_context=True`), several scales and
several models (`train.test_time`).
"""

from detectron2.model_zoo import get_config

from hybrid_cascade import use_mnc_heads

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco_600 import dataloader

model = get_config("common/models/mask_rcnn_c4.py").model
model.backbone.stages.depth = 101
model.proposal_generator.post_nms_topk = (300, 300)
use_mnc_heads(model)

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
