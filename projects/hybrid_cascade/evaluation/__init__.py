"""Measures that Detectron2 lacks."""

from .voc_region import VOCRegionEvaluator

__all__ = ["VOCRegionEvaluator"]
