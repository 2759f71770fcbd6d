"""SSD512, VGG-16, trained like SSD300. Published: box AP 28.8 on COCO test-dev."""

from ..common.models.ssd300_vgg16 import model
from .ssd300_vgg16 import dataloader, lr_multiplier, optimizer, train

model.backbone.highres = True
model.image_size = 512
# The authors' scales for COCO: 0.04 on conv4_3, then 0.1 to 0.9 in equal steps.
model.anchor_generator.aspect_ratios = [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]
model.anchor_generator.scales = [0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06]
model.anchor_generator.steps = [8, 16, 32, 64, 128, 256, 512]
