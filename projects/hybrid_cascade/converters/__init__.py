"""Convert checkpoints of other projects; `tools/convert_checkpoint.py` is the command for it."""

from .caffe import CAFFE_IMAGENET, CAFFE_MNC
from .caffemodel import read_caffemodel
from .conversion import Conversion, Source, convert
from .detectron2 import DETECTRON2
from .mmdet import MMDET
from .report import describe
from .sources import SOURCES, find_source
from .torchvision import TORCHVISION_SSD, TORCHVISION_WEIGHTS
from .weights_file import read_weights

__all__ = [
    "CAFFE_IMAGENET",
    "CAFFE_MNC",
    "DETECTRON2",
    "MMDET",
    "SOURCES",
    "TORCHVISION_SSD",
    "TORCHVISION_WEIGHTS",
    "Conversion",
    "Source",
    "convert",
    "describe",
    "find_source",
    "read_caffemodel",
    "read_weights",
]
