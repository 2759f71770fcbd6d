"""HTC, ViTDet-L, 36 epochs."""

from ..common.backbones.vitdet import use_vitdet, vitdet_optimizer, vitdet_weights
from .htc_vitdet_b_3x import dataloader, lr_multiplier, model, train

use_vitdet(model, "L")
optimizer = vitdet_optimizer("L")
train.init_checkpoint = vitdet_weights("L")
