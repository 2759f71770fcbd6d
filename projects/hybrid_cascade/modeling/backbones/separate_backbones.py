"""Several backbones that see the same image and share nothing."""

import math

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn


class SeparateBackbones(Backbone):
    """Backbones for stages that do not share features.

    In MNC's ablation (arXiv 1512.04412, Table 1), they are the row without shared features. The
    output has the features of all backbones: "mask.conv5_3" is conv5_3 of the backbone with the
    name "mask", whose parameters are under `backbones.mask.`.
    """

    def __init__(self, **backbones: Backbone):
        """
        Args:
            backbones: the backbones by name.

        Raises:
            ValueError: if there is none, if a name is empty or has a dot, or if they need images
                that are padded to squares of different sizes.
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
            # As in ImageList.from_tensors, a constraint replaces the property.
            divisors.append(constraints.get("size_divisibility", backbone.size_divisibility))
            squares.add(constraints.get("square_size", 0))
        squares.discard(0)
        if len(squares) > 1:
            raise ValueError(f"The backbones need images of different sizes: squares of {squares}")
        combined = {"size_divisibility": math.lcm(*(d for d in divisors if d > 0))}
        return {**combined, "square_size": squares.pop()} if squares else combined

    @property
    def size_divisibility(self) -> int:
        """The least common multiple of the backbones' divisors; 1 if none of them has one."""
        return self._padding_constraints["size_divisibility"]

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`size_divisibility`, and "square_size" if one of the backbones needs squares."""
        return self._padding_constraints

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the shapes of the features of all backbones."""
        return {
            f"{name}.{feature}": shape
            for name, backbone in self.backbones.items()
            for feature, shape in backbone.output_shape().items()
        }

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps of all backbones for images (N, 3, H, W)."""
        return {
            f"{name}.{feature}": map_
            for name, backbone in self.backbones.items()
            for feature, map_ in backbone(x).items()
        }
