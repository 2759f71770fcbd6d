"""All kinds of checkpoints that can be converted, by their names on the command line."""

from collections.abc import Mapping

import torch

from .caffe import CAFFE_IMAGENET, CAFFE_MNC
from .conversion import Source
from .detectron2 import DETECTRON2
from .mmdet import MMDET
from .torchvision import TORCHVISION_SSD, TORCHVISION_WEIGHTS, is_ssd

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
    """Return the entry of `SOURCES`, or `TORCHVISION_SSD` if it is about an SSD of torchvision.

    Args:
        project: a key of `SOURCES`.
        state_dict: the tensors of the checkpoint.
        target: the state dict of the model that will load them, if it is known. If so, the model
            decides, so that the weights of a VGG-16 fit an SSD.
    """
    if project == "torchvision" and is_ssd(state_dict if target is None else target):
        return TORCHVISION_SSD
    return SOURCES[project]
