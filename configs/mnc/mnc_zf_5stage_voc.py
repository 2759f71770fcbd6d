"""MNC, ZF net, five stages. Published: mAP^r 54.0 at IoU 0.5."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from hybrid_cascade.modeling import ZF

from .mnc_vgg16_5stage_voc import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(ZF)()
rpn, heads = model.proposal_generator, model.roi_heads
rpn.in_features = ["conv5"]
rpn.head.in_channels = 256
heads.in_features = ["conv5"]
heads.mask_head.input_shape = ShapeSpec(channels=256, height=14, width=14)
heads.masked_head.input_shape = ShapeSpec(channels=256, height=7, width=7)
heads.box_head.input_shape = ShapeSpec(channels=256, height=7, width=7)
train.init_checkpoint = "zf.pth"
