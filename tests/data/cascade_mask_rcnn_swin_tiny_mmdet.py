"""The config of cascade_mask_rcnn_swin_tiny_mmdet.pth."""

from hybrid_cascade.model_zoo import get_config

cfg = get_config("cascade_mask_rcnn/cascade_mask_rcnn_swin_t_fpn_3x.py")
model, dataloader = cfg.model, cfg.dataloader
optimizer, lr_multiplier, train = cfg.optimizer, cfg.lr_multiplier, cfg.train

model.backbone.bottom_up.update(
    embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4], window_size=4
)
model.backbone.out_channels = 12
model.proposal_generator.post_nms_topk = (150, 150)
heads = model.roi_heads
heads.num_classes = 5
heads.box_heads[0].conv_dims = [12] * 4
heads.box_heads[0].fc_dims = [16]
heads.mask_heads[0].conv_dims = [6] * 5
heads.average_logits = True
heads.box_predictors[2].box2box_transform.weights = [1 / 0.033] * 2 + [1 / 0.067] * 2
train.init_checkpoint = ""
