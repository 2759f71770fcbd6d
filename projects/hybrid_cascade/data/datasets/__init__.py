"""Datasets that can be registered with Detectron2."""

from .coco_json import register_coco_json
from .coco_stuff import register_coco_stuff
from .coco_summary import CocoSummary, summarize_coco_json
from .sbd import register_sbd
from .sbd_to_coco import prepare_sbd
from .stuff_labels import stuff_labels_of
from .union import load_datasets
from .voc import register_voc_without_sbd

__all__ = [
    "CocoSummary",
    "load_datasets",
    "prepare_sbd",
    "register_coco_json",
    "register_coco_stuff",
    "register_sbd",
    "register_voc_without_sbd",
    "stuff_labels_of",
    "summarize_coco_json",
]
