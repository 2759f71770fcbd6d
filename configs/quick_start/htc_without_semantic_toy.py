"""HTC without its semantic branch on the toy scenes."""

from ..common.models.htc_without_semantic_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

make_toy(model)
