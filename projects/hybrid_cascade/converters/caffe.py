"""Networks of Caffe: VGG-16 and ZF for ImageNet, and the weights that MNC has published.

- ImageNet: `VGG_ILSVRC_16_layers.caffemodel` of VGG's authors, its copies that come with
  py-faster-rcnn and MNC, and ZF. MNC's training starts from them.
- MNC (github.com/daijifeng001/MNC): `mnc_model.caffemodel.h5`, VGG-16 with five stages, and the
  snapshots of its training. Names and orders are those of models/VGG16/mnc_5stage/test.prototxt and
  of the Python layers there.
"""

import math
import re
from collections.abc import Mapping

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import nn

from .caffemodel import read_caffemodel
from .conversion import IMAGENET_LAYERS, Layout, Source
from .layer_names import NO_VGG_HEAD, vgg_names
from .preprocessing import CAFFE


def _read(path: str, unsafe: bool) -> Mapping[str, torch.Tensor]:
    """Read a file of Caffe. It contains no code, so `unsafe` changes nothing."""
    return read_caffemodel(path)


CAFFE_IMAGENET = Source(
    title="Caffe",
    rename=vgg_names,
    left_out={
        r"^fc[67]\.": NO_VGG_HEAD,
        r"^fc8\.": "the classification layer",
        r"^fc\d_": "only fc6 and fc7 initialize the two pathways of MNC",
    },
    preprocessing=(CAFFE,),
    must_fill=IMAGENET_LAYERS,
    read=_read,
)


_MNC_LAYERS = {
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
# The end of the names of layers of stages 4 and 5.
_COPY = "_ext"

# MNC's anchors are 8, 16 and 32 times these shapes: height / width -> (width, height) in whole
# pixels. Detectron2's shapes have exactly the area of 16 x 16 pixels.
_ANCHOR_SHAPES = {0.5: (23, 12), 1.0: (16, 16), 2.0: (11, 22)}
_OUR_ANCHORS = {"sizes": [[128, 256, 512]], "aspect_ratios": [list(_ANCHOR_SHAPES)]}
# The predictor here divides box deltas by these numbers, the inverses of (0.1, 0.1, 0.2, 0.2), the
# standard deviations of MNC's training targets. MNC saves this layer multiplied by the deviations.
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def _rename_mnc(name: str, layout: Layout) -> list[str]:
    layer, _, what = name.rpartition(".")
    if re.fullmatch(r"conv\d_\d", layer):
        return [f"backbone.{layer}.{what}"]
    return [f"{_MNC_LAYERS[layer]}.{what}"] if layer in _MNC_LAYERS else []


def _refuse_different_copies(state_dict: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in state_dict.items():
        layer, _, what = name.rpartition(".")
        shared = f"{layer.removesuffix(_COPY)}.{what}"
        if layer.endswith(_COPY) and not torch.equal(tensor, state_dict.get(shared, tensor[:0])):
            raise ValueError(
                f"{name} is not equal to {shared}, or there is none. Stages 4 and 5 of MNC have "
                "the weights of stages 2 and 3, and so have those of the model here"
            )


def _adapt_mnc(
    state_dict: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    adapters = {
        "rpn_cls_score": _to_objectness_logits,
        "rpn_bbox_pred": _to_anchor_deltas,
        "seg_cls_score": _to_background_last,
        "cls_score": _to_background_last,
        "bbox_pred": _to_box_deltas,
    }
    adapted = dict(state_dict)
    for name, tensor in state_dict.items():
        layer, _, what = name.rpartition(".")
        if layer in adapters:
            adapted[name] = adapters[layer](tensor, name)
    return adapted


def _to_objectness_logits(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Return the rows of a sigmoid per anchor from those of a softmax.

    There, the background's rows of all nine anchors come before the foreground's.
    """
    background, foreground = _check_rows(tensor, 2 * 9, name).chunk(2)
    return _sort_by_size(foreground - background)


def _to_anchor_deltas(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Return the rows that move Detectron2's anchors to the proposals of MNC's anchors.

    Both have the same centers. Where our anchor is r times as wide, dx = d / width must be divided
    by r, and dw = log(w / width) lowered by log r. The same holds for heights, dy and dh.
    """
    deltas = _sort_by_size(_check_rows(tensor, 4 * 9, name).unflatten(0, (9, 4)))
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


def _sort_by_size(tensor: torch.Tensor) -> torch.Tensor:
    """Reorder nine anchors: MNC has the sizes of each shape, Detectron2 the shapes of each size."""
    return tensor.unflatten(0, (3, 3)).transpose(0, 1).flatten(0, 1)


def _to_background_last(tensor: torch.Tensor, name: str) -> torch.Tensor:
    _count_rows(tensor, name)
    return tensor.roll(-1, dims=0)


def _to_box_deltas(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Drop the rows of the background, which is class 0 there, and normalize the others."""
    if _count_rows(tensor, name) % 4:
        raise ValueError(f"{name} has {len(tensor)} rows, which are not four for each class")
    scale = torch.tensor(_BOX_WEIGHTS).reshape(4, *[1] * (tensor.dim() - 1))
    return (tensor.unflatten(0, (-1, 4))[1:] * scale).flatten(0, 1)


def _check_rows(tensor: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    if _count_rows(tensor, name) != rows:
        raise ValueError(f"{name} has {len(tensor)} rows, but {rows} with MNC's nine anchors")
    return tensor


def _count_rows(tensor: torch.Tensor, name: str) -> int:
    if tensor.dim() == 0:
        raise ValueError(f"{name} is a single number, which has no rows")
    return len(tensor)


def _check_anchors(model: nn.Module, yaml: bool) -> str:
    generators = (
        model.proposal_generator.anchor_generator,
        DefaultAnchorGenerator(**_OUR_ANCHORS, strides=[16], offset=0.5),
    )
    # A map of 2 x 2 cells shows sizes, shapes, their order, stride and offset.
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


CAFFE_MNC = Source(
    title="MNC",
    rename=_rename_mnc,
    left_out={rf"{_COPY}\.": "stages 4 and 5 share the weights of 2 and 3; it is equal"},
    preprocessing=(CAFFE,),
    refuse=_refuse_different_copies,
    adapt=_adapt_mnc,
    check=_check_anchors,
    read=_read,
)
