"""HTC without its semantic branch, ResNet-50-FPN, 12 epochs: needs COCO instances only."""

from detectron2.model_zoo import get_config

from ..common.data.coco import dataloader
from ..common.models.cascade_mask_rcnn_fpn import model
from ..common.train import train

optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"

model.roi_heads.interleaved = True
model.roi_heads.mask_information_flow = True
model.roi_heads.box_predictors[0].test_score_thresh = 0.001
