"""torchvision's SSD300 for COCO, and its VGG-16 as SSD's backbone."""

import re
from collections.abc import Iterable, Mapping

import torch
from detectron2.data import MetadataCatalog

from .conversion import Layout, Source
from .preprocessing import SSD_VGG16
from .torchvision import refuse_other_vggs

_CLASS_LAYER = re.compile(r"head\.classification_head\.module_list\.\d+\.(weight|bias)")
_POOL4 = 23  # the layer of torchvision's `vgg16().features` at which SSD cuts it
# torchvision's classes are COCO's category ids, 1 to 90, ten of which do not exist.
_TORCHVISION_CLASSES, _COCO_CLASSES = 91, 80


def is_ssd(names: Iterable[str]) -> bool:
    """Whether the tensors with these names are those of an SSD."""
    return any(_CLASS_LAYER.fullmatch(name) for name in names)


def _rename(name: str, layout: Layout) -> list[str]:
    if match := re.fullmatch(r"features\.(\d+)\.(weight|bias)", name):
        index = int(match[1])
        place = f"features.{index}" if index < _POOL4 else f"extra.0.{index - _POOL4}"
        return [f"backbone.{place}.{match[2]}"]
    return [name] if name.startswith(("backbone.", "head.")) else []


def _select_classes(
    state_dict: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """Leave only the classes of COCO, in Detectron2's order, if the model has as many."""
    classes = MetadataCatalog.get("coco_2017_train").thing_dataset_id_to_contiguous_id
    rows = [0, *sorted(classes, key=classes.get)]
    result = dict(state_dict)
    for name, tensor in state_dict.items():
        regression = name.replace("classification", "regression")
        if not _CLASS_LAYER.fullmatch(name) or regression not in state_dict:
            continue
        boxes = len(state_dict[regression]) // 4  # default boxes of a cell
        selects = target is None or len(target.get(name, ())) == boxes * (_COCO_CLASSES + 1)
        if selects and len(tensor) == boxes * _TORCHVISION_CLASSES:
            result[name] = tensor.unflatten(0, (boxes, -1))[:, rows].flatten(0, 1)
    return result


TORCHVISION_SSD = Source(
    title="torchvision",
    rename=_rename,
    left_out={r"^classifier\.": "the classification layers"},
    # The layers of VGG-16; the others start fresh where a training begins with ImageNet's weights.
    must_fill=r"backbone\.(features|extra\.0\.[0-6])\.",
    preprocessing=(SSD_VGG16,),
    refuse=refuse_other_vggs,
    adapt=_select_classes,
)
