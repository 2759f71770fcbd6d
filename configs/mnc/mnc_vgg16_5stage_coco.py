"""MNC, VGG-16, five stages, COCO. Published on test-dev: mask AP 19.5, 39.7 at IoU 0.5.

It is trained on 8 images a step, 240k steps with a learning rate of 0.001 and 80k with 0.0001: the
rates of MNC on VOC, for as long as Faster R-CNN's paper trains on COCO. From there come the anchors
of 64 pixels, too.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from ..common.data.coco_600 import dataloader
from ..common.mnc_voc_schedule import optimizer, train
from ..common.models.mnc_vgg16 import model

model.roi_heads.num_classes = 80
rpn = model.proposal_generator
rpn.anchor_generator.sizes = [[64, 128, 256, 512]]
rpn.head.num_anchors = 12

dataloader.train.total_batch_size = 8
train.max_iter = 320000
train.init_checkpoint = "vgg16.pth"
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[240000, 320000])
