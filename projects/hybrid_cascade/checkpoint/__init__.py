"""Checkpoints of other projects: `tools/convert_checkpoint.py` is the command for it."""

from .conversion import Conversion, Source, convert
from .detectron2_zoo import DETECTRON2
from .mmdet import MMDET
from .report import describe
from .torchvision import TORCHVISION_WEIGHTS
from .weights_file import read_weights

SOURCES = {"mmdet": MMDET, "detectron2": DETECTRON2, "torchvision": TORCHVISION_WEIGHTS}

__all__ = ["MMDET", "SOURCES", "Conversion", "Source", "convert", "describe", "read_weights"]
