"""Five-stage MNC with a ResNet-50-FPN on COCO's photographs, as htc_coco.py: to see the whole way
work on real data."""

from hybrid_cascade import use_mnc_heads

from ..common.models.mask_rcnn_fpn import model
from .htc_coco import dataloader, lr_multiplier, optimizer, train

use_mnc_heads(model)
model.proposal_generator.post_nms_topk = (300, 100)
# Without ImageNet weights the statistics of the batch norms have to be learned.
model.backbone.bottom_up.freeze_at = 0
model.backbone.bottom_up.stem.norm = model.backbone.bottom_up.stages.norm = "BN"
