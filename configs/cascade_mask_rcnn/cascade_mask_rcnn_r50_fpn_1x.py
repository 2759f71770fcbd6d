"""Cascade Mask R-CNN, ResNet-50-FPN, 12 epochs, a mask branch at every stage.

Settings to change on the command line. Those of `box_heads.0` and `mask_heads.0` hold for all three
stages:

    model.backbone.bottom_up.stages.depth=101            # depth of the backbone
    model.backbone.bottom_up.freeze_at=3                 # frozen blocks of the backbone
    model.proposal_generator.anchor_matcher.thresholds=[0.3,0.7]
    model.proposal_generator.pre_nms_topk=[4000,2000]    # training, inference
    model.proposal_generator.post_nms_topk=[1000,1000]
    model.roi_heads.box_heads.0.conv_dims=[256,256]      # convolutions of the box heads
    model.roi_heads.box_heads.0.fc_dims=[512]            # their fully connected layers
    model.roi_heads.mask_heads.0.conv_dims=[256,256,256] # the last is the deconvolution
    model.roi_heads.box_pooler.output_size=7
    model.roi_heads.box_pooler.sampling_ratio=2
    model.roi_heads.mask_pooler.output_size=14
    model.roi_heads.stage_loss_weights=[1,1,1]
    model.roi_heads.box_predictors.1.box2box_transform.weights=[20,20,10,10]
    model.roi_heads.proposal_matchers.1.thresholds=[0.6]
"""

from ..common.coco_1x import lr_multiplier, optimizer, train
from ..common.data.coco import dataloader
from ..common.models.cascade_mask_rcnn_fpn import model

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
