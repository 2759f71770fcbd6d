"""SSD300, VGG-16, 120 epochs: torchvision's recipe (references/detection of pytorch/vision).

Published: box AP 25.1 on COCO val2017 (torchvision).
"""

from detectron2.model_zoo import get_config

from ..common.coco_schedule import coco_schedule
from ..common.data.coco_ssd import dataloader
from ..common.models.ssd300_vgg16 import model
from ..common.train import train

optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.002
optimizer.weight_decay = 0.0005
# torchvision trains with 4 images on each of 8 GPUs.
train.max_iter, lr_multiplier = coco_schedule(
    epochs=120, drops=(80, 110), warmup_steps=1000, images_per_step=32
)
# torchvision's vgg16 with the weights IMAGENET1K_FEATURES, converted: see docs/ssd.md.
train.init_checkpoint = "pretrained/ssd_vgg16_features.pth"
