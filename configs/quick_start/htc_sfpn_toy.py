"""HTC with SFPN on the toy scenes."""

from hybrid_cascade import use_semantic_pyramid

from ..common.models.htc_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

use_semantic_pyramid(model)
model.semantic_branch.loss_mean = "all"  # as the branch that it replaces
model.semantic_branch.label_sampling = "corner"
make_toy(model)
