"""Measures that Detectron2 lacks, as evaluators that its `inference_on_dataset` takes.

`hybrid_cascade.engine` runs the evaluation of a config.
"""

from .voc_region import VOCRegionEvaluator

__all__ = ["VOCRegionEvaluator"]
