"""Detectron2's "1x" training: SGD, 12 epochs of COCO with 16 images a step."""

from detectron2.model_zoo import get_config

from .train import train

optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
