"""Datasets: registering them, checking them, and one that needs no download.

Importing this package registers the built-in datasets under the folder that Detectron2 uses too,
`$DETECTRON2_DATASETS`, or `datasets`. Files are touched when a dataset is first used.
"""

import os

from .checks import DatasetError, check_dataset
from .datasets.coco_json import register_coco_json
from .datasets.coco_stuff import register_coco_stuff
from .datasets.sbd import prepare_sbd, register_sbd
from .datasets.stuff_labels import stuff_labels_of
from .mappers.box_aware import BoxAwareMapper
from .mappers.copy_paste import CopyPasteMapper
from .mappers.train import build_train_mapper
from .toy_scenes.dataset import draw_toy_scenes, register_toy_scenes
from .zoom_out import ZoomOut

__all__ = [
    "BoxAwareMapper",
    "CopyPasteMapper",
    "DatasetError",
    "ZoomOut",
    "build_train_mapper",
    "check_dataset",
    "draw_toy_scenes",
    "prepare_sbd",
    "register_coco_json",
    "register_coco_stuff",
    "register_sbd",
    "register_toy_scenes",
    "stuff_labels_of",
]

_root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
register_coco_stuff(_root)
register_sbd(os.path.join(_root, "sbd"))
register_toy_scenes(os.path.join(_root, "toy_scenes"))
