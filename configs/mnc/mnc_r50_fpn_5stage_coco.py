"""MNC on a ResNet-50-FPN, five stages, COCO: boxes warp from the level that suits them. Nobody has
published figures of this model."""

from detectron2.model_zoo import get_config

from hybrid_cascade import use_mnc_heads

from ..common.train import train

model = get_config("common/models/mask_rcnn_fpn.py").model
model.proposal_generator.post_nms_topk = (300, 300)
use_mnc_heads(model)

dataloader = get_config("common/data/coco.py").dataloader
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
