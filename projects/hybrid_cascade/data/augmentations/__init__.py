"""Augmentations that Detectron2 lacks."""

from .zoom_out import ZoomOut

__all__ = ["ZoomOut"]
