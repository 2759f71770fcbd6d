"""Operators, without knowledge of models."""

from .pyramid_roi_align import pyramid_roi_align
from .roi_warp import ROIWarp, roi_warp
from .soft_nms import soft_nms

__all__ = ["ROIWarp", "pyramid_roi_align", "roi_warp", "soft_nms"]
