"""20 epochs of COCO with 16 images a step."""

from .coco_schedule import coco_schedule

max_iter, lr_multiplier = coco_schedule(epochs=20, drops=(16, 19), warmup_steps=500)
