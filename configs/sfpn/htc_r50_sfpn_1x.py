"""HTC with SFPN, ResNet-50, 12 epochs.

One semantic branch makes both the pyramid and the semantic features that HTC's heads fuse.
"""

from hybrid_cascade import use_semantic_pyramid

from ..htc.htc_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

use_semantic_pyramid(model, num_classes=183)
model.semantic_branch.loss_mean = "all"  # as the branch that it replaces
model.semantic_branch.label_sampling = "corner"
