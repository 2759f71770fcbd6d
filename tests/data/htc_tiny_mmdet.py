"""The config of htc_tiny_mmdet.pth: HTC, small enough to keep its weights in a repository."""

from hybrid_cascade.model_zoo import get_config

from .tiny_resnet import tiny_resnet_stages

cfg = get_config("htc/htc_r50_fpn_1x.py")
model, dataloader = cfg.model, cfg.dataloader
optimizer, lr_multiplier, train = cfg.optimizer, cfg.lr_multiplier, cfg.train

model.backbone.bottom_up.stem.out_channels = 8
model.backbone.bottom_up.stages = tiny_resnet_stages(8)
model.backbone.out_channels = 32
model.roi_heads.num_classes = 5
model.roi_heads.box_heads[0].fc_dims = [64, 64]
model.roi_heads.mask_heads[0].conv_dims = [32] * 5
model.roi_heads.box_predictors[2].box2box_transform.weights = [1 / 0.033] * 2 + [1 / 0.067] * 2
model.semantic_branch.num_classes = 9
model.semantic_branch.conv_dim = 32
train.init_checkpoint = ""
