"""PASCAL VOC 2012 images with SBD's instance masks, short side 600, in BGR, as MNC was trained."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from hybrid_cascade.evaluation import VOCRegionEvaluator

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "sbd_train"
dataloader.test.dataset.names = "sbd_val"
resize = L(T.ResizeShortestEdge)(short_edge_length=600, max_size=1000)
dataloader.train.mapper.augmentations = [resize, L(T.RandomFlip)(horizontal=True)]
dataloader.test.mapper.augmentations = [resize]
dataloader.train.mapper.instance_mask_format = "bitmask"  # SBD's masks are no polygons
dataloader.train.total_batch_size = 8
dataloader.evaluator = L(VOCRegionEvaluator)(dataset_name="${..test.dataset.names}")
