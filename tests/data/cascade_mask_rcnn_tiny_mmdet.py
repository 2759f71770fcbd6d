"""The config of cascade_mask_rcnn_tiny_mmdet_training.pth."""

from hybrid_cascade.model_zoo import get_config

from .tiny_resnet import tiny_resnet_stages

cfg = get_config("cascade_mask_rcnn/cascade_mask_rcnn_r50_fpn_1x.py")
model, dataloader = cfg.model, cfg.dataloader
optimizer, lr_multiplier, train = cfg.optimizer, cfg.lr_multiplier, cfg.train

model.backbone.bottom_up.stem.out_channels = 8
model.backbone.bottom_up.stages = tiny_resnet_stages(4)
model.backbone.out_channels = 16
model.roi_heads.num_classes = 5
model.roi_heads.box_heads[0].fc_dims = [32, 32]
model.roi_heads.mask_heads[0].conv_dims = [16] * 5
model.roi_heads.box_predictors[2].box2box_transform.weights = [1 / 0.033] * 2 + [1 / 0.067] * 2
train.init_checkpoint = ""
