"""Colour an image by a semantic label map, with a legend of the labels.

Shapes: (H, W) the size of the image as drawn.
"""

from copy import deepcopy

import cv2
import numpy as np
import torch
from detectron2.data import Metadata, transforms
from detectron2.data.detection_utils import annotations_to_instances, transform_instance_annotations
from torch import nn

from ..data.checks import has_mask
from ..data.mappers.partial_masks import with_box_as_mask
from .class_colors import Color, palette, thing_color, thing_name

Legend = dict[int, tuple[str, Color]]  # label -> name and colour


def semantic_names(model: nn.Module, metadata: Metadata) -> dict[int, str]:
    """Return the names of the semantic labels.

    They are the `stuff_classes` of the metadata. For a model whose label maps are painted from
    instances, they are the instance classes and "background".
    """
    names = dict(enumerate(metadata.get("stuff_classes") or []))
    targets = getattr(model, "semantic_targets", None)
    if targets is not None and (targets.source == "instances" or not names):
        labels = enumerate(targets.thing_labels.tolist())
        names = {label: thing_name(index, metadata) for index, label in labels}
        names[targets.unlabelled_value] = "background"
    return names


def paint_targets(
    model: nn.Module, dataset_dict: dict, resize: transforms.Transform, size: tuple[int, int]
) -> np.ndarray | None:
    """Paint the label map that a model would learn from the instances of an image.

    Args:
        model: any.
        dataset_dict: in Detectron2's format, in the original size.
        resize: maps the size of the annotations to `size`.
        size: (H, W).

    Returns:
        (H, W) int64 labels; None if the model learns from no maps, or from those of the dataset.
    """
    targets = getattr(model, "semantic_targets", None)
    has_map = "sem_seg_file_name" in dataset_dict
    if targets is None or targets.source == "sem_seg" or (targets.source == "auto" and has_map):
        return None
    annotations = [x for x in dataset_dict.get("annotations", ()) if not x.get("iscrowd", 0)]
    masked = [has_mask(x) for x in annotations]
    if any(masked):
        # The box stands in for a missing mask, and is ignored.
        annotations = [
            x if is_masked else {**with_box_as_mask(x), "category_id": x["category_id"]}
            for x, is_masked in zip(annotations, masked, strict=True)
        ]
    else:
        annotations = [{k: v for k, v in x.items() if k != "segmentation"} for x in annotations]
    annotations = [transform_instance_annotations(deepcopy(x), resize, size) for x in annotations]
    instances = annotations_to_instances(annotations, size, mask_format="bitmask")
    if any(masked):
        instances.gt_has_mask = torch.tensor(masked)
    return targets.paint(instances).numpy()


def make_legend(sem_segs: list[np.ndarray], names: dict[int, str], metadata: Metadata) -> Legend:
    """Choose a name and a colour for each label in some (H, W) label maps, most frequent first.

    Labels that have the name of an instance class get the colour of that class.
    """
    colors = metadata.get("stuff_colors") or []
    things = list(metadata.get("thing_classes") or [])
    ignored = metadata.get("ignore_label", 255)
    legend: Legend = {}
    if not sem_segs:
        return legend
    labels, counts = np.unique(np.stack(sem_segs), return_counts=True)
    for label in labels[np.argsort(-counts, kind="stable")].tolist():
        name = names.get(label, f"label {label}")
        if label == ignored:
            legend[label] = ("ignored", (0.0, 0.0, 0.0))
        elif name == "background":
            legend[label] = (name, (0.4, 0.4, 0.4))
        elif name in things:
            legend[label] = (name, thing_color(things.index(name), metadata))
        elif label < len(colors):
            legend[label] = (name, tuple(np.divide(colors[label], 255)))
        else:
            legend[label] = (name, palette(len(things) + label))
    return legend


def draw_sem_seg(image: np.ndarray, sem_seg: np.ndarray, legend: Legend) -> np.ndarray:
    """Colour an (H, W, 3) uint8 RGB image by its (H, W) labels."""
    colors = np.zeros_like(image)
    for label, (_, color) in legend.items():
        colors[sem_seg == label] = np.multiply(color, 255)
    return cv2.addWeighted(image, 0.35, colors, 0.65, 0)
