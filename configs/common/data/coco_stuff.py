"""COCO's instances with the semantic label maps of COCO-Stuff, 183 classes."""

from .coco import dataloader

dataloader.train.dataset.names = "coco_2017_train_stuffthings"
dataloader.test.dataset.names = "coco_2017_val_stuffthings"
