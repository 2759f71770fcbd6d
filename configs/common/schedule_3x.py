"""36 epochs of COCO with 16 images a step, as Swin's and MViTv2's "3x"."""

from .coco_schedule import coco_schedule

max_iter, lr_multiplier = coco_schedule(epochs=36, drops=(27, 33), warmup_steps=1000)
