"""The user's own data, which the command line names (docs/own_data.md)."""

from detectron2.config import LazyCall as L

from hybrid_cascade.engine.own_data import OwnData

from .coco import dataloader

data = L(OwnData)(train=None, train_images=None, val=None, val_images=None, epochs=None)

dataloader.train.dataset.names = dataloader.test.dataset.names = "auto"
dataloader.train.total_batch_size = "auto"
dataloader.train.num_workers = dataloader.test.num_workers = "auto"
dataloader.train.mapper.instance_mask_format = "auto"
dataloader.train.mapper.augmentations[0].short_edge_length = (640, 672, 704, 736, 768, 800)
