"""Operators, without knowledge of models."""

from .roi_warp import ROIWarp, roi_warp
from .roi_warp_pooler import ROIWarpPooler

__all__ = ["ROIWarp", "ROIWarpPooler", "roi_warp"]
