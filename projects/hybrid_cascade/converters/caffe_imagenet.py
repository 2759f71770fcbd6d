"""ImageNet weights of Caffe: VGG-16 and ZF, from which MNC starts.

The VGG-16 of its authors, `VGG_ILSVRC_16_layers.caffemodel`, and the copies of it that come with
py-faster-rcnn and MNC.
"""

from collections.abc import Mapping

import torch

from .caffemodel import read_caffemodel
from .conversion import Layout, Source
from .preprocessing import CAFFE
from .vgg import NO_SUCH_HEAD, vgg_names


def read(path: str, unsafe: bool) -> Mapping[str, torch.Tensor]:
    """A file of Caffe; there is no code in it that `unsafe` could let it run."""
    return read_caffemodel(path)


def _rename(name: str, layout: Layout) -> list[str]:
    layer, _, what = name.rpartition(".")
    return vgg_names(layer, what, layout)


CAFFE_IMAGENET = Source(
    title="Caffe",
    rename=_rename,
    left_out={
        r"^fc[67]\.": NO_SUCH_HEAD,
        r"^fc8\.": "the classification layer",
        r"^fc\d_": "fc6 and fc7 seed both pathways",
    },
    must_fill=r"backbone\.(?!fpn_)",
    preprocessing=(CAFFE,),
    read=read,
)
