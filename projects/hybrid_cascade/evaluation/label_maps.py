"""Intersection over union of semantic segmentations with the label maps of a dataset.

Shapes: K semantic classes, images of H x W pixels.
"""

import os

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils.file_io import PathManager
from PIL import Image


class LabelMapEvaluator(SemSegEvaluator):
    """Detectron2's `SemSegEvaluator`, which can't read label maps with NumPy 2, with clear errors.

    Takes the "sem_seg" of each output, (K, H, W) scores of the classes. Returns {"sem_seg": …} with
    "mIoU" (the mean over the classes in the ground truth), "fwIoU", "mACC" and "pACC", in percent,
    and these for each class. Pixels with the dataset's `ignore_label` do not count.
    """

    def __init__(self, dataset_name: str, *, output_dir: str | os.PathLike | None = None):
        """
        Args:
            dataset_name: a registered dataset with label maps. Its metadata have `stuff_classes`,
                the names of all labels, and `ignore_label`.
            output_dir: a folder for the predictions and the metrics.

        Raises:
            ValueError: if the dataset lacks any of these.
        """
        obstacle = obstacle_to_miou(dataset_name)
        if obstacle:
            raise ValueError(obstacle)
        super().__init__(dataset_name, output_dir=output_dir, sem_seg_loading_fn=self._read)
        # Predictions are written with the category ids of the labels. Where only some labels have
        # one, they are written as they are.
        ids = self._contiguous_id_to_dataset_id
        if ids is not None and not ids.keys() >= set(range(self._num_classes)):
            self._contiguous_id_to_dataset_id = None

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See `SemSegEvaluator.process`.

        Raises:
            ValueError: if the model has no "sem_seg", or other labels than the dataset; if a label
                map has a value that is none of the labels.
        """
        for output in outputs:
            if "sem_seg" not in output:
                raise ValueError(
                    'The model returns no "sem_seg". Set train.evaluate_sem_seg=True '
                    "(TEST.EVALUATE_SEM_SEG True); it needs a semantic branch."
                )
            check_number_of_labels(self._dataset_name, len(output["sem_seg"]))
        super().process(inputs, outputs)

    def _read(self, path: str, dtype: type = int) -> np.ndarray:
        """Read a label map, (H, W), whose values have to be labels."""
        labels = read_label_map(path, dtype)
        wrong = labels[(labels >= self._num_classes) & (labels != self._ignore_label)]
        if wrong.size:
            raise ValueError(
                f"Label map '{path}' of the dataset '{self._dataset_name}' has the value "
                f"{wrong.max()}; values must be in [0, {self._num_classes}), as there are that "
                f"many `stuff_classes`, or {self._ignore_label} to be ignored."
            )
        return labels


def read_label_map(path: str, dtype: type = int) -> np.ndarray:
    """Read a label map, (H, W), into an array of its own.

    A `SemSegEvaluator` takes it as `sem_seg_loading_fn`; its own is a ValueError with NumPy 2.
    """
    with PathManager.open(path, "rb") as file:
        return np.array(Image.open(file), dtype=dtype)


def obstacle_to_miou(dataset_name: str) -> str | None:
    """Return why semantic segmentations of a dataset can't be measured, and what to do, or None."""
    metadata = MetadataCatalog.get(dataset_name)
    dataset = DatasetCatalog.get(dataset_name)
    without = [image["file_name"] for image in dataset if "sem_seg_file_name" not in image]
    where = f"mIoU on the dataset '{dataset_name}' can't be measured:"
    if without:
        return (
            f"{where} it has no label map (`sem_seg_file_name`) for '{without[0]}'. Register it "
            "with label maps, `register_coco_json(..., sem_seg_root=...)`, evaluate on another "
            "one, or set train.evaluate_sem_seg=False (TEST.EVALUATE_SEM_SEG False)."
        )
    for key in ("stuff_classes", "ignore_label"):
        if metadata.get(key) is None:
            return (
                f"{where} its metadata have no `{key}`. Give it to register_coco_json({key}=...), "
                f"or set MetadataCatalog.get('{dataset_name}').{key}."
            )
    return None


def check_number_of_labels(dataset_name: str, num_classes: int) -> None:
    """Raise a ValueError if a model has another number of semantic classes than a dataset."""
    expected = len(MetadataCatalog.get(dataset_name).stuff_classes)
    if num_classes != expected:
        raise ValueError(
            f"The semantic branch has {num_classes} classes, but the label maps of the dataset "
            f"'{dataset_name}' have {expected} labels (`stuff_classes`). A branch that learns from "
            "label maps painted from instances can't be measured by them: set "
            "train.evaluate_sem_seg=False (TEST.EVALUATE_SEM_SEG False). Otherwise correct "
            "model.semantic_branch.num_classes (MODEL.SEMANTIC_BRANCH.NUM_CLASSES)."
        )
