"""Cascade Mask R-CNN, Swin-T-FPN, 36 epochs, as in Swin-Transformer-Object-Detection.

Published: box AP 50.4, mask AP 43.7 on COCO val2017. docs/checkpoints.md has the command that
converts the published weights.
"""

from ..common.backbones.swin import swin_optimizer, swin_weights, use_swin
from ..common.coco_schedule import lr_multiplier_3x as lr_multiplier
from ..common.coco_schedule import max_iter_3x
from ..common.data.coco import dataloader
from ..common.data.multi_scale_crop import multi_scale_crop
from ..common.models.cascade_mask_rcnn_fpn import model
from ..common.models.conv_heads import use_4conv1fc_box_heads
from ..common.models.giou_loss import use_giou_loss
from ..common.train import train

use_swin(model, "T")
use_4conv1fc_box_heads(model, norm="SyncBN")
use_giou_loss(model, weight=10.0)
model.roi_heads.box_predictors[0].cls_agnostic_bbox_reg = False  # of all stages
# RoIs and anchors of the training as in MMDetection.
model.roi_heads.resample_stages = True
model.proposal_generator.anchor_boundary_thresh = 0
optimizer = swin_optimizer()
dataloader.train.mapper.augmentations = multi_scale_crop()
train.amp.enabled = True
train.max_iter = max_iter_3x
train.init_checkpoint = swin_weights("T")
