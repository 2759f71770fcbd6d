"""Detectron2's ROIPooler with less work on a CPU, and with semantic context.

R: boxes of all images, C: channels.
"""

import functools
import warnings

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes
from torch import nn
from torch.nn import functional as F

from ..layers.pyramid_roi_align import is_compiled, pyramid_roi_align


@functools.cache
def _warn_of_torchvision() -> None:
    warnings.warn(
        "torchvision pools RoIs, which is slow on a CPU: the operator of this project is not"
        " compiled, or was before it had this one. docs/roi_warp.md says how to build it.",
        stacklevel=2,
    )


class FusedROIPooler(nn.Module):
    """Pools a pyramid as `ROIPooler`; with a semantic map, P(x, r) + P(S(x), r) (HTC, Eq. 5).

    It is called as `ROIPooler`, with the semantic map as the last feature map. On a CPU, one
    operator pools all maps and adds them up, if it is compiled and the poolers are of the usual
    kind; otherwise the poolers themselves are called.

    Attributes:
        in_one_pass: whether that operator is used where it can be. May be set to False at any time.
    """

    def __init__(self, pooler: nn.Module, semantic_pooler: ROIPooler | None = None):
        """
        Args:
            pooler: pools the levels of the pyramid: a `ROIPooler`, or what is called alike.
            semantic_pooler: pools the semantic map. Where its output is larger than `pooler`'s, it
                is average-pooled to that size (14x14 to 7x7 for the box branch, as published).
        """
        super().__init__()
        self.pooler = pooler
        self.semantic_pooler = semantic_pooler
        self.in_one_pass = True

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """
        Args:
            x: the pyramid's maps, then the semantic map if there is a pooler for it; all with the
                same number of channels C.
            box_lists: one `Boxes` for each image, R boxes in all.

        Returns:
            (R, C, output size, output size) features, sums of the pyramid's and the semantic ones.
        """
        if (
            self.in_one_pass
            and not torch.jit.is_tracing()  # a traced file should run without this operator
            and x[0].device.type == "cpu"
            and x[0].numel() > 0
            and len(box_lists) == len(x[0])  # else Detectron2 says what is wrong
            and (arguments := self._operator_arguments()) is not None
        ):
            return self._pool_at_once(x, box_lists, arguments)
        if self.semantic_pooler is None:
            return self.pooler(x, box_lists)
        features = self.pooler(x[:-1], box_lists)
        semantic = self.semantic_pooler(x[-1:], box_lists)
        return features + F.adaptive_avg_pool2d(semantic, features.shape[-2:])

    def _pool_at_once(
        self, x: list[torch.Tensor], box_lists: list[Boxes], arguments: dict
    ) -> torch.Tensor:
        pooler = self.pooler
        boxes = convert_boxes_to_pooler_format(box_lists)
        if len(pooler.level_poolers) == 1:
            levels = torch.zeros(len(boxes), dtype=torch.int64)
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
        computed = torch.promote_types(dtype, torch.float32)
        features = pyramid_roi_align(
            [m.to(computed) for m in x], boxes.to(computed), levels, **arguments
        )
        return features.to(dtype)

    def _operator_arguments(self) -> dict | None:
        """The arguments with which `pyramid_roi_align` does what the poolers do, or None."""
        poolers = [p for p in (self.pooler, self.semantic_pooler) if p is not None]
        if not is_compiled:
            _warn_of_torchvision()
            return None
        # A subclass may do something else.
        if not all(type(p) is ROIPooler for p in poolers):
            return None
        aligns = [align for pooler in poolers for align in pooler.level_poolers]
        if not all(type(align) is ROIAlign for align in aligns):
            return None
        settings = {(align.sampling_ratio, align.aligned) for align in aligns}
        height, width = self.pooler.output_size
        multiples = {(p.output_size[0] / height, p.output_size[1] / width) for p in poolers}
        if len(settings) > 1 or any(y != x or not y.is_integer() for y, x in multiples):
            return None
        ((sampling_ratio, aligned),) = settings
        return {
            "scales": [align.spatial_scale for align in aligns],
            "output_size": (height, width),
            "sampling_ratio": sampling_ratio,
            "aligned": aligned,
            "bins": [align.output_size[0] // height for align in aligns],
        }
