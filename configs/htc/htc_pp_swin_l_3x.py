"""HTC++ with Swin-L (arXiv 2103.14030, appendix A2.2), 36 epochs.

Published: box AP 57.1, mask AP 49.5 on COCO val2017, after 72 epochs with InstaBoost and a layer of
global self-attention after the last stage. Here, Copy-Paste replaces InstaBoost, and there is no
such layer. Heads are as in Swin's Cascade Mask R-CNN: 4conv1fc with SyncBN, GIoU loss.
"""

from ..common.backbones.swin import swin_weights, use_swin
from ..common.data.copy_paste import use_copy_paste
from ..common.models.conv_heads import use_4conv1fc_box_heads
from ..common.models.giou_loss import use_giou_loss
from .htc_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

use_swin(model, "L")
use_4conv1fc_box_heads(model, norm="SyncBN")
use_giou_loss(model, weight=10.0)
model.roi_heads.soft_nms = "linear"
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=(400, 1400), max_size=1600, sample_style="range"
)
use_copy_paste(dataloader)
train.amp.enabled = True
train.init_checkpoint = swin_weights("L")
