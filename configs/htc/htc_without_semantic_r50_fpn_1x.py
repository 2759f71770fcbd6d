"""HTC without its semantic branch, ResNet-50-FPN, 12 epochs. It needs COCO's instances only."""

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco import dataloader
from ..common.models.cascade_mask_rcnn_fpn import model

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"

model.roi_heads.interleaved = True
model.roi_heads.mask_information_flow = True
model.roi_heads.box_predictors[0].test_score_thresh = 0.001
