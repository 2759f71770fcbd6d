"""Convert annotations of other formats into COCO's JSON.

Each reader yields the images of its format; `to_coco` makes one file of them. Nothing is guessed: a
file that can't be read, or says something that has no counterpart, is an error that names it.
"""

from .class_lists import find_class_list, read_class_names
from .coco_writer import LabelledImage, LabelledInstance, split_coco, to_coco
from .labelme import read_labelme
from .lvis import lvis_to_coco
from .voc_xml import read_voc_xml
from .yolo import read_yolo

__all__ = [
    "LabelledImage",
    "LabelledInstance",
    "find_class_list",
    "lvis_to_coco",
    "read_class_names",
    "read_labelme",
    "read_voc_xml",
    "read_yolo",
    "split_coco",
    "to_coco",
]
