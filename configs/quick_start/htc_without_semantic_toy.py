"""HTC without its semantic branch on the toy scenes."""

from ..common.models.cascade_mask_rcnn_fpn import model
from ..common.models.toy import make_toy
from .htc_toy import dataloader, lr_multiplier, optimizer, train

make_toy(model)
model.roi_heads.interleaved = True
model.roi_heads.mask_information_flow = True
