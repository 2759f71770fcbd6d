"""HTC, ViTDet-B, 36 epochs of 64 images a step with large-scale jitter. The paper trains 100."""

from ..common.backbones.vitdet import use_vitdet, vitdet_optimizer, vitdet_weights
from ..common.data.coco_stuff import dataloader
from ..common.data.large_scale_jitter import use_large_scale_jitter
from ..common.models.htc_fpn import model
from ..common.schedule_3x import lr_multiplier, max_iter
from ..common.train import train

use_vitdet(model, "B")
use_large_scale_jitter(dataloader)
dataloader.train.total_batch_size = 64
optimizer = vitdet_optimizer("B")
train.amp.enabled = True
train.init_checkpoint = vitdet_weights("B")
# 64 images a step are a quarter of the steps; the schedule counts in shares of the training.
train.max_iter = max_iter // 4
