"""COCO's instances with short sides of 600 pixels, the long ones up to 1000, as MNC has."""

from detectron2.model_zoo import get_config

from hybrid_cascade.data import PartialMasksMapper
from hybrid_cascade.evaluation import FastCOCOEvaluator

dataloader = get_config("common/data/coco.py").dataloader
dataloader.evaluator._target_ = FastCOCOEvaluator
dataloader.train.mapper._target_ = PartialMasksMapper
dataloader.train.mapper.augmentations[0].short_edge_length = (600,)
dataloader.train.mapper.augmentations[0].max_size = 1000
dataloader.test.mapper.augmentations[0].short_edge_length = 600
dataloader.test.mapper.augmentations[0].max_size = 1000
