"""HTC without its semantic branch, with a ResNet-50-FPN, trained as published.

docs/configs.md compares the switches of the training with those of other projects.
"""

from .cascade_mask_rcnn_fpn import model

model.proposal_generator.anchor_boundary_thresh = 0  # train on anchors inside of the image only
heads = model.roi_heads
heads.interleaved = True
heads.mask_information_flow = True
heads.resample_stages = True
heads.box_predictors[0].test_score_thresh = 0.001
