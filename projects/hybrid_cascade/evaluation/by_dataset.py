"""The evaluators that the metadata of a dataset ask for, as in Detectron2's train_net.py."""

from importlib.util import find_spec

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)

from .fast_coco import FastCOCOEvaluator
from .label_maps import LabelMapEvaluator
from .voc_region import VOCRegionEvaluator

# `evaluator_type` -> evaluators. Panoptic ones depend on the output of the model.
EVALUATORS = {
    "coco": (FastCOCOEvaluator,),
    "coco_panoptic_seg": (FastCOCOEvaluator,),
    "voc_region": (FastCOCOEvaluator, VOCRegionEvaluator),
    "lvis": (LVISEvaluator,),
    "pascal_voc": (PascalVOCDetectionEvaluator,),
    "cityscapes_instance": (CityscapesInstanceEvaluator,),
    "cityscapes_sem_seg": (CityscapesSemSegEvaluator,),
    "sem_seg": (LabelMapEvaluator,),
}
# Those that measure "sem_seg" of the outputs and nothing else.
SEM_SEG_TYPES = ("sem_seg", "cityscapes_sem_seg")
_WITH_FOLDER = (FastCOCOEvaluator, LVISEvaluator, LabelMapEvaluator)
# Evaluator -> the package that it imports.
_PACKAGES = {
    LVISEvaluator: "lvis",
    CityscapesInstanceEvaluator: "cityscapesscripts",
    CityscapesSemSegEvaluator: "cityscapesscripts",
}


def build_evaluators_of(dataset_name: str, folder: str) -> list[DatasetEvaluator]:
    """Build the evaluators that the `evaluator_type` of a dataset asks for.

    Args:
        dataset_name: a registered dataset.
        folder: where evaluators write detections to.

    Raises:
        ValueError: see `check_evaluator_type`.
    """
    return [
        evaluator(dataset_name, **({"output_dir": folder} if evaluator in _WITH_FOLDER else {}))
        for evaluator in EVALUATORS[check_evaluator_type(dataset_name)]
    ]


def check_evaluator_type(dataset_name: str) -> str:
    """Return the `evaluator_type` of a dataset.

    Raises:
        ValueError: if it has none or an unknown one, or a package is not installed; names the
            dataset and says what to do.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        problem = "no `evaluator_type`" if kind is None else f"the `evaluator_type` {kind!r}"
        raise ValueError(
            f"The dataset '{dataset_name}' has {problem} in its metadata, so that nothing can "
            "measure detections on it. Set MetadataCatalog.get("
            f"'{dataset_name}').evaluator_type to one of {', '.join(EVALUATORS)} "
            '("coco" for instances in COCO\'s format, as register_coco_json does), or use a '
            "LazyConfig, which names its evaluators itself."
        )
    for evaluator in EVALUATORS[kind]:
        package = _PACKAGES.get(evaluator)
        if package is not None and find_spec(package) is None:
            raise ValueError(
                f"The dataset '{dataset_name}' has the `evaluator_type` {kind!r}, whose "
                f"{evaluator.__name__} needs a package: pip install {package}"
            )
    return kind
