"""Five-stage MNC on the toy scenes."""

from hybrid_cascade import use_mnc_heads

from ..common.models.mask_rcnn_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

make_toy(model)
use_mnc_heads(model)
# About four anchors of an image are positive. The box loss is divided by the number of samples:
# with 256, it would teach the RPN less than the gradients from the later stages.
model.proposal_generator.batch_size_per_image = 32
