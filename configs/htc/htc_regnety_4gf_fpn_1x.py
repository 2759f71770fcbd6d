"""HTC, RegNetY-4GF-FPN, 12 epochs. With "x" instead of "y" it is RegNetX-4GF."""

from ..common.backbones.regnet import regnet_config, use_regnet
from .htc_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

use_regnet(model, "y")
dataloader.train.mapper.image_format = model.input_format
_theirs = regnet_config("y")
optimizer.weight_decay = _theirs.optimizer.weight_decay
train.init_checkpoint = _theirs.train.init_checkpoint
train.cudnn_benchmark = True
