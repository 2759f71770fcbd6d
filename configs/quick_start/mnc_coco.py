"""Five-stage MNC with a ResNet-50-FPN on COCO, a hundred iterations: a test like htc_coco.py."""

from hybrid_cascade import use_mnc_heads

from ..common.models.mask_rcnn_fpn import model
from .htc_coco import dataloader, lr_multiplier, optimizer, train

use_mnc_heads(model)
model.proposal_generator.post_nms_topk = (300, 100)
# Without ImageNet weights, the batch norms have to learn their statistics.
model.backbone.bottom_up.freeze_at = 0
model.backbone.bottom_up.stem.norm = model.backbone.bottom_up.stages.norm = "BN"
