"""Detectron2's ROIPooler with RoI warp in place of RoIAlign."""

from __future__ import annotations

import math

import torch
from detectron2.modeling.poolers import assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..layers.roi_warp import ROIWarp


class ROIWarpPooler(nn.Module):
    """Warps each box from the feature map of the pyramid level that suits its size.

    It is called as Detectron2's `ROIPooler` and assigns boxes to levels by the same rule (equation
    1 of the FPN paper), so that it can replace it in any ROI head. Gradients reach the boxes too.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: list[float],
        max_pool: int = 1,
        aligned: bool = False,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        """
        Args:
            output_size: samples of a box, (h, w), or one number for both, before the max pooling.
            scales: size of a pixel of the image in pixels of each map, finest map first: 1/stride,
                powers of two, each half of the one before.
            max_pool, aligned: as in `roi_warp`.
            canonical_box_size: side of a box, in pixels of the image, that belongs on
                `canonical_level`.
            canonical_level: its level, where level l has the stride 2^l.

        Raises:
            ValueError: if the scales are not such a pyramid.
        """
        super().__init__()
        levels = [-math.log2(scale) for scale in scales]
        expected = [levels[0] + index for index in range(len(levels))]
        if levels != expected or levels[0] < 0 or not levels[0].is_integer():
            raise ValueError(f"scales must be powers of two, each half of the last, got {scales}")
        self.min_level, self.max_level = int(levels[0]), int(levels[-1])
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        self.level_poolers = nn.ModuleList(
            ROIWarp(output_size, scale, max_pool, aligned) for scale in scales
        )

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """
        Args:
            x: feature maps (N, C, H_l, W_l), one for each of the scales.
            box_lists: N Boxes, in pixels of the image.

        Returns:
            (M, C, h / max_pool, w / max_pool) for the M boxes of all images, in their order. A box
            whose size is not a number belongs to no level and gives zeros.
        """
        if len(x) != len(self.level_poolers):
            raise ValueError(f"{len(x)} feature maps for {len(self.level_poolers)} scales")
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(f"{len(box_lists)} lists of boxes for {x[0].shape[0]} images")
        if len(box_lists) == 0:
            return self.level_poolers[0](x[0], x[0].new_empty(0, 5))
        boxes = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], boxes)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        indices = [torch.nonzero(levels == level)[:, 0] for level in range(len(x))]
        pooled = [
            pooler(x[level], boxes[indices[level]])
            for level, pooler in enumerate(self.level_poolers)
        ]
        output = pooled[0].new_zeros(len(boxes), *pooled[0].shape[1:])
        return output.index_copy(0, torch.cat(indices), torch.cat(pooled))
