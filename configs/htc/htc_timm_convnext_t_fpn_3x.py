"""HTC on a backbone of timm, here ConvNeXt-T, 36 epochs.

Give ImageNet's weights as `model.backbone.bottom_up.checkpoint_path=FILE`, or let timm download
them: `model.backbone.bottom_up.pretrained=True`. Without either it starts fresh.
"""

from detectron2.config import LazyCall as L

from hybrid_cascade.modeling import TimmBackbone

from .htc_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up = L(TimmBackbone)(
    name="convnext_tiny", checkpoint_path="", drop_path_rate=0.4
)
model.backbone.in_features = ["res2", "res3", "res4", "res5"]
train.init_checkpoint = ""
