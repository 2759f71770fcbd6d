"""Backbones side by side that share nothing."""

import math

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn


class SeparateBackbones(Backbone):
    """Several backbones on the same image, for tasks that do not share features.

    The row "shared features: no" of MNC's ablation (arXiv 1512.04412, Table 1), where each stage
    has a network of its own. The features of all are put out, "mask.conv5_3" for conv5_3 of the
    backbone named "mask"; its parameters are under `backbones.mask.`.
    """

    def __init__(self, **backbones: Backbone):
        """
        Args:
            backbones: by name.

        Raises:
            ValueError: if there are none, a name is empty or has a dot, or they ask for images
                padded to squares of different sizes.
        """
        super().__init__()
        bad = [name for name in backbones if not name or "." in name]
        if bad or not backbones:
            raise ValueError(f"backbones={list(backbones)}: needs names, and none with a dot")
        self.backbones = nn.ModuleDict(backbones)
        self._padding_constraints = self._combine_padding_constraints()

    def _combine_padding_constraints(self) -> dict[str, int]:
        divisors, squares = [], set()
        for backbone in self.backbones.values():
            constraints = backbone.padding_constraints
            # As in ImageList.from_tensors, the constraint replaces the property.
            divisors.append(constraints.get("size_divisibility", backbone.size_divisibility))
            squares.add(constraints.get("square_size", 0))
        squares.discard(0)
        if len(squares) > 1:
            raise ValueError(f"The backbones need images of different sizes: squares of {squares}")
        combined = {"size_divisibility": math.lcm(*(d for d in divisors if d > 0))}
        return {**combined, "square_size": squares.pop()} if squares else combined

    @property
    def size_divisibility(self) -> int:
        """The least common multiple of what they need; 1 where none needs any."""
        return self._padding_constraints["size_divisibility"]

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`size_divisibility`, and "square_size" if one of the backbones has it."""
        return self._padding_constraints

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Of the features of all backbones."""
        return {
            f"{name}.{feature}": shape
            for name, backbone in self.backbones.items()
            for feature, shape in backbone.output_shape().items()
        }

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """From images (N, 3, H, W) to the maps of all backbones."""
        return {
            f"{name}.{feature}": map_
            for name, backbone in self.backbones.items()
            for feature, map_ in backbone(x).items()
        }
