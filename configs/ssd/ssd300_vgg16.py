"""SSD300, VGG-16, 120 epochs: torchvision's recipe (references/detection of pytorch/vision).

Published: box AP 25.1 on COCO val2017 (torchvision).
"""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from ..common.data.coco_ssd import dataloader
from ..common.models.ssd300_vgg16 import model
from ..common.train import train

# 118,287 images in steps of 32 (torchvision: 4 on each of 8 GPUs).
STEPS_PER_EPOCH = 3697

optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.002
optimizer.weight_decay = 0.0005
train.max_iter = 120 * STEPS_PER_EPOCH
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01],
        milestones=[80 * STEPS_PER_EPOCH, 110 * STEPS_PER_EPOCH],
        num_updates=train.max_iter,
    ),
    warmup_length=1000 / train.max_iter,
    warmup_factor=0.001,
)
# torchvision's vgg16, weights IMAGENET1K_FEATURES, converted: docs/ssd.md.
train.init_checkpoint = "pretrained/ssd_vgg16_features.pth"
