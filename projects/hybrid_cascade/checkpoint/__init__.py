"""Checkpoints of other projects: `tools/convert_checkpoint.py` is the command for it."""

from .caffe_imagenet import CAFFE_IMAGENET
from .caffe_mnc import CAFFE_MNC
from .caffemodel import read_caffemodel
from .conversion import Conversion, Source, convert
from .detectron2_zoo import DETECTRON2
from .mmdet import MMDET
from .report import describe
from .torchvision import TORCHVISION_WEIGHTS
from .weights_file import read_weights

SOURCES = {
    "mmdet": MMDET,
    "detectron2": DETECTRON2,
    "torchvision": TORCHVISION_WEIGHTS,
    "caffe-imagenet": CAFFE_IMAGENET,
    "caffe-mnc": CAFFE_MNC,
}

__all__ = [
    "CAFFE_IMAGENET",
    "CAFFE_MNC",
    "MMDET",
    "SOURCES",
    "TORCHVISION_WEIGHTS",
    "Conversion",
    "Source",
    "convert",
    "describe",
    "read_caffemodel",
    "read_weights",
]
