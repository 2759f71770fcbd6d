"""COCO's instances. RGB images with short sides of 800 pixels, as the published HTC models have."""

from detectron2.model_zoo import get_config

from hybrid_cascade.data import PartialMasksMapper
from hybrid_cascade.evaluation import FastCOCOEvaluator

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.mapper._target_ = PartialMasksMapper
dataloader.train.mapper.augmentations[0].short_edge_length = (800,)
dataloader.train.mapper.image_format = "RGB"
dataloader.evaluator._target_ = FastCOCOEvaluator
