"""Measures that Detectron2 lacks, as evaluators that its `inference_on_dataset` takes.

`by_dataset` builds those, Detectron2's among them, that the metadata of a dataset ask for.
`hybrid_cascade.engine` runs the evaluation of a config.
"""

from .fast_coco import FastCOCOEvaluator
from .label_maps import LabelMapEvaluator
from .voc_region import VOCRegionEvaluator

__all__ = ["FastCOCOEvaluator", "LabelMapEvaluator", "VOCRegionEvaluator"]
