"""MNC with VGG-16, five stages (arXiv 1512.04412)."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config

from hybrid_cascade import use_mnc_heads
from hybrid_cascade.modeling import VGG16

model = get_config("common/models/mask_rcnn_fpn.py").model
# The images that Caffe's models expect.
model.pixel_mean = [102.9801, 115.9465, 122.7717]
model.pixel_std = [1.0, 1.0, 1.0]
model.backbone = L(VGG16)(out_features=["conv5_3"], freeze_at=2)

rpn = model.proposal_generator
rpn.in_features = ["conv5_3"]
rpn.head.in_channels = 512
rpn.head.num_anchors = 9
rpn.anchor_generator.sizes = [[128, 256, 512]]
rpn.anchor_generator.strides = [16]
rpn.anchor_generator.offset = 0.5  # the anchors of the published weights are centered on cells
rpn.pre_nms_topk = (12000, 6000)  # training, inference
rpn.post_nms_topk = (300, 300)
rpn.min_box_size = 16
rpn.smooth_l1_beta = 1 / 9

heads = model.roi_heads
heads.num_classes = 20
heads.box_in_features = ["conv5_3"]
heads.box_pooler.scales = [1 / 16]
heads.box_head.input_shape = ShapeSpec(channels=512, height=7, width=7)
heads.box_head.fc_dims = [4096, 4096]
heads.box_predictor.smooth_l1_beta = 1.0  # as in Fast R-CNN
use_mnc_heads(model)
