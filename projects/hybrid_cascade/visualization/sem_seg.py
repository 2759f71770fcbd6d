"""Colour an image by a semantic label map, with a legend of the labels.

Shapes: (H, W) the size of the image as drawn.
"""

import cv2
import numpy as np
from detectron2.data import Metadata
from torch import nn

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
