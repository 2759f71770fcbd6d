"""SSD on the toy scenes: its default boxes, matching, losses and NMS on a small ResNet-FPN.

It has the backbone of the other quick-start configs, so that SSD can be compared with cascades.
VGG-16 is too slow for two CPU cores.
"""

from ..common.data.toy_scenes import dataloader
from ..common.models.cascade_mask_rcnn_fpn import model as cascade
from ..common.models.ssd300_vgg16 import model
from ..common.models.toy import NUM_THINGS, make_toy
from ..common.toy_schedule import lr_multiplier, optimizer, train

make_toy(cascade)
model.backbone = cascade.backbone
# Maps p3 to p6, for objects of 20 to 80 pixels.
model.backbone.bottom_up.out_features = model.backbone.in_features = ["res3", "res4", "res5"]
model.pixel_mean, model.pixel_std = cascade.pixel_mean, cascade.pixel_std
model.num_classes = NUM_THINGS
model.image_size = 192
model.anchor_generator.aspect_ratios = [[2], [2], [2], [2]]
model.anchor_generator.scales = [0.12, 0.2, 0.3, 0.45, 0.7]
model.anchor_generator.steps = [8, 16, 32, 64]
dataloader.train.mapper.use_instance_mask = False
