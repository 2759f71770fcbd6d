"""HTC and Cascade R-CNN."""

from .roi_heads import HTCROIHeads

__all__ = ["HTCROIHeads"]
