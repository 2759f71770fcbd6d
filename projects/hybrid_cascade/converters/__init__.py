"""Checkpoints of other projects: `tools/convert_checkpoint.py` is the command for it."""

from collections.abc import Mapping

import torch

from .caffe_imagenet import CAFFE_IMAGENET
from .caffe_mnc import CAFFE_MNC
from .caffemodel import read_caffemodel
from .conversion import Conversion, Source, convert
from .detectron2_zoo import DETECTRON2
from .mmdet import MMDET
from .report import describe
from .torchvision import TORCHVISION_WEIGHTS
from .torchvision_ssd import TORCHVISION_SSD, is_ssd
from .weights_file import read_weights

SOURCES = {
    "mmdet": MMDET,
    "detectron2": DETECTRON2,
    "torchvision": TORCHVISION_WEIGHTS,
    "caffe-imagenet": CAFFE_IMAGENET,
    "caffe-mnc": CAFFE_MNC,
}


def find_source(
    project: str,
    state_dict: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor] | None = None,
) -> Source:
    """What converts a checkpoint: one of `SOURCES`, or torchvision's SSD.

    Args:
        project: a key of `SOURCES`.
        state_dict: the checkpoint's tensors.
        target: the state dict of the model that shall load them, if it is known.
    """
    if project == "torchvision" and is_ssd(state_dict if target is None else target):
        return TORCHVISION_SSD
    return SOURCES[project]


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
    "find_source",
    "read_caffemodel",
    "read_weights",
]
