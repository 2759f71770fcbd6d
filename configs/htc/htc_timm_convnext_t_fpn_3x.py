"""HTC on a backbone of timm, ConvNeXt-T, 36 epochs.

`model.backbone.bottom_up.checkpoint_path=FILE` loads ImageNet weights, and
`model.backbone.bottom_up.pretrained=True` lets timm download them. Without either, the backbone
starts from scratch.
"""

from detectron2.config import LazyCall as L

from hybrid_cascade.modeling import TimmBackbone

from .htc_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up = L(TimmBackbone)(
    name="convnext_tiny", checkpoint_path="", drop_path_rate=0.4
)
model.backbone.in_features = ["res2", "res3", "res4", "res5"]
train.init_checkpoint = ""
