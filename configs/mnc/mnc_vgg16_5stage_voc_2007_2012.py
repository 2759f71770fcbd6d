"""MNC, VGG-16, five stages, VOC 2007 and 2012: images with masks, and images with boxes only.

It detects boxes, with the box layers. Published, with VOC 2007's test images in the training too:
mAP^b 75.9 on VOC 2012's test. The schedule is that of VOC 2012, three times as long for about three
times as many images.
"""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

from ..common.data.voc_2007_2012 import dataloader
from ..common.mnc_voc_schedule import optimizer, train
from ..common.models.mnc_vgg16 import model

model.roi_heads.test_output = "boxes"
train.max_iter = 120000
train.init_checkpoint = "vgg16.pth"
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[96000, 120000])
