"""HTC, Swin-B-FPN, 36 epochs."""

from ..common.backbones.swin import swin_weights, use_swin
from .htc_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

use_swin(model, "B")
train.init_checkpoint = swin_weights("B")
