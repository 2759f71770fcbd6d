"""Cascade Mask R-CNN with a ResNet-50-FPN: `HTCROIHeads` with the switches of HTC off.

The ResNet is torchvision's, as in the published HTC models. Settings of `box_heads.0`,
`box_predictors.0` and `mask_heads.0` hold for all three stages.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from hybrid_cascade import use_htc_heads

from .mask_rcnn_fpn import model

rpn = model.proposal_generator
rpn.head.in_channels = "${...backbone.out_channels}"
rpn.pre_nms_topk = (2000, 1000)  # training, inference
rpn.post_nms_topk = (2000, 1000)
rpn.smooth_l1_beta = 1 / 9

use_htc_heads(model)
heads = model.roi_heads
heads.interleaved = False
heads.mask_information_flow = False
# Layers take their input sizes from the layers before them, so that one override is enough.
heads.box_heads[0].input_shape = L(ShapeSpec)(
    channels="${.....backbone.out_channels}",
    height="${....box_pooler.output_size}",
    width="${....box_pooler.output_size}",
)
heads.box_predictors[0].input_shape = L(ShapeSpec)(channels="${....box_heads.0.fc_dims.0}")
heads.box_predictors[0].smooth_l1_beta = 1.0
heads.mask_heads[0].input_shape = L(ShapeSpec)(
    channels="${.....backbone.out_channels}",
    height="${....mask_pooler.output_size}",
    width="${....mask_pooler.output_size}",
)
