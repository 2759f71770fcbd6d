"""Operators, without knowledge of models."""

from .mask_voting import mask_voting
from .pyramid_roi_align import pyramid_roi_align
from .roi_warp import ROIWarp, roi_warp
from .roi_warp_pooler import ROIWarpPooler
from .soft_nms import soft_nms

__all__ = ["ROIWarp", "ROIWarpPooler", "mask_voting", "pyramid_roi_align", "roi_warp", "soft_nms"]
