"""SBD: PASCAL VOC's 20 classes, short sides of 600 pixels as MNC has, VOC's and COCO's metrics."""

from detectron2.config import LazyCall as L

from hybrid_cascade.evaluation import FastCOCOEvaluator, VOCRegionEvaluator

from .coco_600 import dataloader

dataloader.train.dataset.names = "sbd_train"
dataloader.test.dataset.names = "sbd_val"
# SBD's masks are run-length encoded, not polygons.
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.total_batch_size = 8
dataloader.evaluator = [
    L(FastCOCOEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
    L(VOCRegionEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
]
