"""HTC, MViTv2-T-FPN, 36 epochs, 64 images a step. `use_mvitv2` has sizes "S" and "B" too."""

from ..common.backbones.mvitv2 import mvitv2_optimizer, mvitv2_weights, use_mvitv2
from ..common.coco_schedule import lr_multiplier_3x as lr_multiplier
from ..common.coco_schedule import max_iter_3x
from ..common.data.coco_stuff import dataloader
from ..common.models.htc_fpn import model
from ..common.train import train

use_mvitv2(model, "T")
optimizer = mvitv2_optimizer()
dataloader.train.total_batch_size = 64
train.amp.enabled = True
# 64 images a step instead of 16. The schedule is in fractions of the training.
train.max_iter = max_iter_3x // 4
train.init_checkpoint = mvitv2_weights("T")
