"""HTC, MViTv2-T-FPN, 36 epochs of 64 images a step; use_mvitv2 has "S" and "B" too."""

from ..common.backbones.mvitv2 import mvitv2_optimizer, mvitv2_weights, use_mvitv2
from ..common.data.coco_stuff import dataloader
from ..common.models.htc_fpn import model
from ..common.schedule_3x import lr_multiplier, max_iter
from ..common.train import train

use_mvitv2(model, "T")
optimizer = mvitv2_optimizer()
dataloader.train.total_batch_size = 64
train.amp.enabled = True
# 64 images a step are a quarter of the steps; the schedule counts in shares of the training.
train.max_iter = max_iter // 4
train.init_checkpoint = mvitv2_weights("T")
