"""Detectron2's Mask R-CNN on torchvision's ResNet-50: RGB images, stride in 3x3 convolutions."""

from detectron2.model_zoo import get_config

constants = get_config("common/data/constants.py").constants
model = get_config("common/models/mask_rcnn_fpn.py").model

model.pixel_mean = constants.imagenet_rgb256_mean
model.pixel_std = constants.imagenet_rgb256_std
model.input_format = "RGB"
model.backbone.bottom_up.freeze_at = 2
model.backbone.bottom_up.stages.stride_in_1x1 = False
