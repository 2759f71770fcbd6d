"""The toy scenes that the package draws: images of 128 x 192 pixels with things and stuff."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from hybrid_cascade.data import PartialMasksMapper
from hybrid_cascade.evaluation import FastCOCOEvaluator

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.mapper._target_ = PartialMasksMapper
dataloader.train.dataset.names = "toy_scenes_train"
dataloader.test.dataset.names = "toy_scenes_val"
dataloader.train.mapper.augmentations = [L(T.RandomFlip)(horizontal=True)]
dataloader.test.mapper.augmentations = []
dataloader.train.mapper.image_format = "RGB"
dataloader.evaluator._target_ = FastCOCOEvaluator
dataloader.train.total_batch_size = 4
# Small images are read faster in the training process than in workers that share two cores.
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
