"""Operators, without knowledge of models."""

from .roi_warp import ROIWarp, roi_warp

__all__ = ["ROIWarp", "roi_warp"]
