"""Poolers that take the place of Detectron2's ROIPooler: RoIAlign with context, and RoI warp.

Shapes: N images, R RoIs of all images, C channels, h x w feature maps, H x W samples of a RoI.
"""

import functools
import math
import warnings

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.extension import compiled_devices
from ..layers.pyramid_roi_align import is_compiled, pyramid_roi_align
from ..layers.resizing import adaptive_average
from ..layers.roi_warp import ROIWarp
from .module_hooks import has_hooks


@functools.cache
def _warn_of_torchvision(device_type: str) -> None:
    warnings.warn(
        f"torchvision pools RoIs on {device_type}, level by level, which is slower: the operator of"
        " this project is not compiled for it, or was compiled before it had this one."
        " docs/roi_warp.md says how to build it.",
        stacklevel=2,
    )


class FusedROIPooler(nn.Module):
    """Pools a pyramid as `ROIPooler`; with a semantic map, P(x, r) + P(S(x), r) (HTC, Eq. 5).

    It is called as `ROIPooler`, with the semantic map as the last feature map. One operator pools
    all maps and adds them up, if it is compiled for the device, both poolers are `ROIPooler`s of
    RoIAlign, and neither they nor their parts have hooks. Otherwise they are called themselves.

    Attributes:
        in_one_pass: whether that operator is used where it can be. May be set to False at any time.
    """

    def __init__(self, pooler: nn.Module, semantic_pooler: ROIPooler | None = None):
        """
        Args:
            pooler: pools the levels of the pyramid: a `ROIPooler`, or a module with its interface.
            semantic_pooler: pools the semantic map. If its output has another size than `pooler`'s,
                it is average-pooled to that size (14x14 to 7x7 for the box branch, as published).
        """
        super().__init__()
        self.pooler = pooler
        self.semantic_pooler = semantic_pooler
        self.in_one_pass = True

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Return the features of all boxes.

        Args:
            x: the pyramid's maps, then the semantic map if there is a pooler for it; (N, C, h, w)
                each, of their own sizes.
            box_lists: one `Boxes` for each image, in pixels of the image, R boxes in all.

        Returns:
            (R, C, output size, output size) features, the sums of the pyramid's and the semantic
            ones.
        """
        if (
            self.in_one_pass
            and not torch.jit.is_tracing()  # a traced file should run without this operator
            and x[0].numel() > 0
            and len(box_lists) == x[0].shape[0]  # else Detectron2 says what is wrong
            and (arguments := self._operator_arguments(x[0].device.type)) is not None
        ):
            return self._pool_at_once(x, box_lists, arguments)
        if self.semantic_pooler is None:
            return self.pooler(x, box_lists)
        features = self.pooler(x[:-1], box_lists)
        semantic = self.semantic_pooler(x[-1:], box_lists)
        return features + _average(semantic, *map(int, features.shape[-2:]))

    def _pool_at_once(self, x: list[Tensor], box_lists: list[Boxes], arguments: dict) -> Tensor:
        pooler = self.pooler
        boxes = boxes_of_batch(box_lists)
        if len(pooler.level_poolers) == 1:
            levels = torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
        else:
            levels = assign_boxes_to_levels(
                box_lists,
                pooler.min_level,
                pooler.max_level,
                pooler.canonical_box_size,
                pooler.canonical_level,
            )
        levels = levels[:, None]
        if self.semantic_pooler is not None:
            levels = torch.cat([levels, torch.full_like(levels, len(x) - 1)], dim=1)
        dtype = functools.reduce(torch.promote_types, (m.dtype for m in x))
        boxes = boxes.to(torch.promote_types(dtype, torch.float32))
        return pyramid_roi_align([m.to(dtype) for m in x], boxes, levels, **arguments)

    def _operator_arguments(self, device_type: str) -> dict | None:
        """Return the arguments with which `pyramid_roi_align` can stand in for the poolers.

        Returns None if it cannot.
        """
        poolers = [p for p in (self.pooler, self.semantic_pooler) if p is not None]
        # A subclass may do something else.
        if not all(type(p) is ROIPooler for p in poolers):
            return None
        aligns = [align for pooler in poolers for align in pooler.level_poolers]
        if not all(type(align) is ROIAlign for align in aligns) or has_hooks(*poolers):
            return None
        if not is_compiled or device_type not in compiled_devices:
            if device_type != "meta":  # which computes shapes only
                _warn_of_torchvision(device_type)
            return None
        return {
            "scales": [align.spatial_scale for align in aligns],
            "output_size": self.pooler.output_size,
            "sampling_ratio": [align.sampling_ratio for align in aligns],
            "aligned": [align.aligned for align in aligns],
            "pooled_sizes": [align.output_size for align in aligns],
        }


def boxes_of_batch(box_lists: list[Boxes]) -> Tensor:
    """Return the boxes of all images, (R, 5), in rows of (image index, x1, y1, x2, y2).

    Unlike Detectron2's `convert_boxes_to_pooler_format`, it does not wait for a GPU.
    """
    return torch.cat([F.pad(b.tensor, (1, 0), value=i) for i, b in enumerate(box_lists)])


def _average(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return RoI features (R, C, h, w), averaged to (R, C, rows, columns)."""
    height, width = map(int, x.shape[-2:])
    if height % rows or width % columns:
        return adaptive_average(x, (rows, columns))
    return F.avg_pool2d(x, (height // rows, width // columns))  # which ONNX has


class ROIWarpPooler(nn.Module):
    """Warps each box from the feature map of the pyramid level that suits its size.

    It is called as Detectron2's `ROIPooler` and assigns boxes to levels by the same rule (Eq. 1 of
    the FPN paper), so that it can replace it in any ROI head. Gradients reach the boxes too.
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
            output_size: samples of a box, (H, W), or one number for both, before the max pooling.
            scales: size of a pixel of the image in pixels of each map, finest map first: 1/stride,
                powers of two, each half of the one before.
            max_pool, aligned: as in `roi_warp`.
            canonical_box_size: side, in pixels of the image, of a box that is assigned to
                `canonical_level`.
            canonical_level: level l is the map with the stride 2^l.

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
        """Return the features of all boxes.

        Args:
            x: feature maps (N, C, h, w), one for each of the scales.
            box_lists: N Boxes, in pixels of the image, R boxes in all.

        Returns:
            (R, C, H / max_pool, W / max_pool), in the order of the boxes. A box whose size is NaN
            gives zeros.

        Raises:
            ValueError: for another number of maps than scales, or of `Boxes` than images.
        """
        if len(x) != len(self.level_poolers):
            raise ValueError(f"{len(x)} feature maps for {len(self.level_poolers)} scales")
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(f"{len(box_lists)} lists of boxes for {x[0].shape[0]} images")
        if len(box_lists) == 0:
            return self.level_poolers[0](x[0], x[0].new_empty(0, 5))
        boxes = boxes_of_batch(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], boxes)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        # A box whose size is NaN has any number here: each level gives zeros for it.
        levels = levels.clamp(0, len(x) - 1)
        indices = [torch.nonzero(levels == level)[:, 0] for level in range(len(x))]
        pooled = [
            pooler(x[level], boxes[indices[level]])
            for level, pooler in enumerate(self.level_poolers)
        ]
        # Every row is written once. The shape of a tensor, unlike len(), stays variable in a trace.
        output = pooled[0].new_empty(boxes.shape[0], *pooled[0].shape[1:])
        return output.index_copy_(0, torch.cat(indices), torch.cat(pooled))
