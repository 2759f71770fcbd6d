"""The published weights of MNC, VGG-16 with five stages (github.com/daijifeng001/MNC).

`mnc_model.caffemodel.h5`, and what its training code saves. Names and orders are those of
models/VGG16/mnc_5stage/test.prototxt and of the Python layers there.
"""

import math
import re
from collections.abc import Mapping

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import nn

from .caffe_imagenet import read
from .conversion import Layout, Source
from .preprocessing import CAFFE

_LAYERS = {
    "rpn_conv_3x3": "proposal_generator.rpn_head.conv",
    "rpn_cls_score": "proposal_generator.rpn_head.objectness_logits",
    "rpn_bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
    "fc6_maskest": "roi_heads.mask_head.fc",
    "mask_pred": "roi_heads.mask_head.predictor",
    "fc6_mask": "roi_heads.masked_head.fc1",
    "fc7_mask": "roi_heads.masked_head.fc2",
    "fc6": "roi_heads.box_head.fc1",
    "fc7": "roi_heads.box_head.fc2",
    "seg_cls_score": "roi_heads.predictor.cls_score",
    "cls_score": "roi_heads.predictor.box_cls_score",
    "bbox_pred": "roi_heads.predictor.bbox_pred",
}
# The layers of stages 4 and 5.
_COPY = "_ext"

# Anchors are 8, 16 and 32 times these shapes, by height / width: (width, height) there, in whole
# pixels. Detectron2's have exactly the area of a 16 x 16 cell.
_ANCHOR_SHAPES = {0.5: (23, 12), 1.0: (16, 16), 2.0: (11, 22)}
_OUR_ANCHORS = {"sizes": [[128, 256, 512]], "aspect_ratios": [list(_ANCHOR_SHAPES)]}
# The predictor here divides deltas by the inverse of (0.1, 0.1, 0.2, 0.2), MNC's deviations of the
# training targets; MNC's snapshots have them multiplied in.
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def _rename(name: str, layout: Layout) -> list[str]:
    layer, _, what = name.rpartition(".")
    if re.fullmatch(r"conv\d_\d", layer):
        return [f"backbone.{layer}.{what}"]
    return [f"{_LAYERS[layer]}.{what}"] if layer in _LAYERS else []


def _refuse(state_dict: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in state_dict.items():
        layer, _, what = name.rpartition(".")
        shared = f"{layer.removesuffix(_COPY)}.{what}"
        if layer.endswith(_COPY) and not torch.equal(tensor, state_dict.get(shared, tensor[:0])):
            raise ValueError(
                f"{name} is not equal to {shared}, or there is none. Stages 4 and 5 of MNC have "
                "the weights of stages 2 and 3, and so have those of the model here"
            )


def _adapt(
    state_dict: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    adapters = {
        "rpn_cls_score": _objectness_logits,
        "rpn_bbox_pred": _anchor_deltas,
        "seg_cls_score": _background_last,
        "cls_score": _background_last,
        "bbox_pred": _box_deltas,
    }
    adapted = dict(state_dict)
    for name, tensor in state_dict.items():
        layer, _, what = name.rpartition(".")
        if layer in adapters:
            adapted[name] = adapters[layer](tensor, name)
    return adapted


def _objectness_logits(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """From A background and A foreground channels of a softmax to the A of a sigmoid."""
    background, foreground = _check_rows(tensor, 2 * 9, name).chunk(2)
    return _by_size(foreground - background)


def _anchor_deltas(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The same proposals from Detectron2's anchors.

    Both have the same centers. Where ours is r times as wide, dx = d / width is divided by r, and
    dw = log(w / width) is less by log r; so are dy and dh.
    """
    deltas = _by_size(_check_rows(tensor, 4 * 9, name).unflatten(0, (9, 4)))
    ratios = torch.tensor(
        [
            [16 / math.sqrt(ratio) / width, 16 * math.sqrt(ratio) / height]
            for _ in range(3)
            for ratio, (width, height) in _ANCHOR_SHAPES.items()
        ]
    )
    deltas[:, :2] /= ratios.reshape(9, 2, *[1] * (tensor.dim() - 1))
    if name.endswith("bias"):
        deltas[:, 2:] -= ratios.log()
    return deltas.flatten(0, 1)


def _by_size(tensor: torch.Tensor) -> torch.Tensor:
    """Nine anchors from shapes times sizes to sizes times shapes, as Detectron2 has them."""
    return tensor.unflatten(0, (3, 3)).transpose(0, 1).flatten(0, 1)


def _background_last(tensor: torch.Tensor, name: str) -> torch.Tensor:
    return tensor.roll(-1, dims=0)


def _box_deltas(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Without those of the background, which is class 0 there, and normalized."""
    if len(tensor) % 4:
        raise ValueError(f"{name} has {len(tensor)} rows, which are not four for each class")
    scale = torch.tensor(_BOX_WEIGHTS).reshape(4, *[1] * (tensor.dim() - 1))
    return (tensor.unflatten(0, (-1, 4))[1:] * scale).flatten(0, 1)


def _check_anchors(model: nn.Module, yaml: bool) -> str:
    generators = (
        model.proposal_generator.anchor_generator,
        DefaultAnchorGenerator(**_OUR_ANCHORS, strides=[16], offset=0.5),
    )
    # Two cells in each direction tell sizes, shapes, their order, stride and offset.
    maps = [torch.zeros(1, 1, 2, 2)]
    ours, expected = (torch.cat([b.tensor.cpu() for b in g(maps)]) for g in generators)
    if ours.shape == expected.shape and torch.allclose(ours, expected):
        return ""
    prefix = "MODEL.ANCHOR_GENERATOR." if yaml else "model.proposal_generator.anchor_generator."
    settings = {**_OUR_ANCHORS, "offset": 0.5}
    overrides = (
        f'{prefix}{key.upper()} "{value}"' if yaml else f'"{prefix}{key}={value}"'
        for key, value in settings.items()
    )
    return f"the box deltas are for other anchors than this config's: {' '.join(overrides)}"


def _check_rows(tensor: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    if len(tensor) != rows:
        raise ValueError(f"{name} has {len(tensor)} rows, but {rows} with MNC's nine anchors")
    return tensor


CAFFE_MNC = Source(
    title="MNC",
    rename=_rename,
    left_out={rf"{_COPY}\.": "stages 4 and 5 share the weights of 2 and 3; it is equal"},
    must_fill="",
    preprocessing=(CAFFE,),
    refuse=_refuse,
    adapt=_adapt,
    check=_check_anchors,
    read=read,
)
