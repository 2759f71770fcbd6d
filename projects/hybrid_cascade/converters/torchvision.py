"""torchvision: classification weights (ResNet, ResNeXt, VGG-16) as backbones, and SSD300 for COCO.

The fully connected layers of VGG-16 also fill the RoI heads that have their sizes: the two pathways
of MNC. Weights of other projects with torchvision's names, such as MMDetection's pretrained
ResNeXts, convert in the same way.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from detectron2.data import MetadataCatalog

from .conversion import IMAGENET_LAYERS, Layout, Source
from .layer_names import NO_VGG_HEAD, resnet_names, vgg_names
from .preprocessing import SSD_VGG16, TORCHVISION

# Caffe's names of VGG-16's layers: the convolutions of each block, then the first two of the fully
# connected layers. What follows each of those in `classifier` is a ReLU and a dropout.
_VGG16 = {
    f"features.{index}": f"conv{block}_{number}"
    for block, indices in enumerate(
        [(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)], start=1
    )
    for number, index in enumerate(indices, start=1)
} | {"classifier.0": "fc6", "classifier.3": "fc7"}

_SSD_CLASS_LAYER = re.compile(r"head\.classification_head\.module_list\.\d+\.(weight|bias)")
_SSD_CUT = 23  # SSD's `extra` starts with the layer of this index in `vgg16().features`, pool4
# torchvision's classes are the background and COCO's category ids, 1 to 90; ten do not exist.
_TORCHVISION_CLASSES, _COCO_CLASSES = 91, 80


def is_ssd(names: Iterable[str]) -> bool:
    """Return whether the tensors with these names are those of an SSD."""
    return any(_SSD_CLASS_LAYER.fullmatch(name) for name in names)


def _rename(name: str, layout: Layout) -> list[str]:
    layer, _, what = name.rpartition(".")
    return resnet_names(name, layout) or vgg_names(f"{_VGG16.get(layer, '')}.{what}", layout)


def _refuse_other_vggs(state_dict: Mapping[str, torch.Tensor]) -> None:
    if "features.1.running_mean" in state_dict:
        raise ValueError("This is a VGG with batch norm; the backbone here is torchvision's vgg16")
    depth = sum(1 for name in state_dict if re.fullmatch(r"features\.\d+\.weight", name))
    if depth not in (0, 13):
        raise ValueError(f"This is a VGG with {depth} convolutions; VGG-16 has 13")


TORCHVISION_WEIGHTS = Source(
    title="torchvision",
    rename=_rename,
    left_out={
        r"^classifier\.[03]\.": NO_VGG_HEAD,
        r"^(fc|classifier)\.": "the classification layers",
    },
    preprocessing=(TORCHVISION,),
    must_fill=IMAGENET_LAYERS,
    refuse=_refuse_other_vggs,
)


def _rename_ssd(name: str, layout: Layout) -> list[str]:
    if match := re.fullmatch(r"features\.(\d+)\.(weight|bias)", name):
        index = int(match[1])
        layer = f"features.{index}" if index < _SSD_CUT else f"extra.0.{index - _SSD_CUT}"
        return [f"backbone.{layer}.{match[2]}"]
    return [name] if name.startswith(("backbone.", "head.")) else []


def _select_coco_classes(
    state_dict: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """Keep COCO's classes, in Detectron2's order.

    A model with another number of classes gets the tensors as they are.
    """
    classes = MetadataCatalog.get("coco_2017_train").thing_dataset_id_to_contiguous_id
    rows = [0, *sorted(classes, key=classes.get)]
    result = dict(state_dict)
    for name, tensor in state_dict.items():
        regression = name.replace("classification", "regression")
        if not _SSD_CLASS_LAYER.fullmatch(name) or regression not in state_dict:
            continue
        boxes = len(state_dict[regression]) // 4  # default boxes of a cell
        selects = target is None or len(target.get(name, ())) == boxes * (_COCO_CLASSES + 1)
        if selects and len(tensor) == boxes * _TORCHVISION_CLASSES:
            result[name] = tensor.unflatten(0, (boxes, -1))[:, rows].flatten(0, 1)
    return result


TORCHVISION_SSD = Source(
    title="torchvision",
    rename=_rename_ssd,
    left_out={r"^classifier\.": "the classification layers"},
    preprocessing=(SSD_VGG16,),
    # The layers of VGG-16. The others start fresh in a training from ImageNet weights.
    must_fill=r"backbone\.(features|extra\.0\.[0-6])\.",
    refuse=_refuse_other_vggs,
    adapt=_select_coco_classes,
)
