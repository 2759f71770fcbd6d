"""COCO instances with the label maps of COCO-Stuff, 183 semantic classes."""

from .coco import dataloader

dataloader.train.dataset.names = "coco_2017_train_stuffthings"
dataloader.test.dataset.names = "coco_2017_val_stuffthings"
