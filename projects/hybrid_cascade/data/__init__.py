"""Datasets, dataset mappers and augmentations.

Importing this package registers the built-in datasets. They are expected in the folder that
Detectron2 uses too: `$DETECTRON2_DATASETS`, or `datasets` without it. No file is read or written
before a dataset is first used.
"""

import os

from .augmentations import ZoomOut
from .checks import DatasetError, check_coco_file, check_dataset, check_training_labels
from .datasets import (
    load_datasets,
    prepare_sbd,
    register_coco_json,
    register_coco_stuff,
    register_sbd,
    register_voc_without_sbd,
    stuff_labels_of,
    summarize_coco_json,
)
from .mappers import (
    BoxAwareMapper,
    CopyPasteMapper,
    PartialMasksMapper,
    SkipUnreadable,
    build_train_mapper,
)
from .toy_scenes import draw_toy_scenes, register_toy_scenes

__all__ = [
    "BoxAwareMapper",
    "CopyPasteMapper",
    "DatasetError",
    "PartialMasksMapper",
    "SkipUnreadable",
    "ZoomOut",
    "build_train_mapper",
    "check_coco_file",
    "check_dataset",
    "check_training_labels",
    "draw_toy_scenes",
    "load_datasets",
    "prepare_sbd",
    "register_coco_json",
    "register_coco_stuff",
    "register_sbd",
    "register_toy_scenes",
    "register_voc_without_sbd",
    "stuff_labels_of",
    "summarize_coco_json",
]

_root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
register_coco_stuff(_root)
register_sbd(os.path.join(_root, "sbd"))
register_voc_without_sbd(os.path.join(_root, "VOC2012"), os.path.join(_root, "sbd"))
register_toy_scenes(os.path.join(_root, "toy_scenes"))
