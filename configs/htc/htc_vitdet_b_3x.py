"""HTC, ViTDet-B, 36 epochs (100 in the paper), 64 images a step, large-scale jitter."""

from ..common.backbones.vitdet import use_vitdet, vitdet_optimizer, vitdet_weights
from ..common.coco_schedule import lr_multiplier_3x as lr_multiplier
from ..common.coco_schedule import max_iter_3x
from ..common.data.coco_stuff import dataloader
from ..common.data.large_scale_jitter import use_large_scale_jitter
from ..common.models.htc_fpn import model
from ..common.train import train

use_vitdet(model, "B")
use_large_scale_jitter(dataloader)
dataloader.train.total_batch_size = 64
optimizer = vitdet_optimizer("B")
train.amp.enabled = True
train.init_checkpoint = vitdet_weights("B")
# 64 images a step instead of 16. The schedule is in fractions of the training.
train.max_iter = max_iter_3x // 4
