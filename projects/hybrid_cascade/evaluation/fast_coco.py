"""COCO's metrics in a fraction of the time that pycocotools takes."""

import json
import os
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

from detectron2.evaluation import COCOEvaluator
from detectron2.utils.file_io import PathManager

from .precision_recall import TASKS, PrecisionRecall

try:
    import hotcoco
except ImportError:  # it is required, but training and evaluation do not end for its sake
    hotcoco = None


class FastCOCOEvaluator(COCOEvaluator):
    """`COCOEvaluator` whose metrics are computed by hotcoco: the same figures as pycocotools'.

    pycocotools computes them with `use_fast_impl=False`, and those of keypoints always. Beside the
    results, precision over recall is saved, for `load_precision_recall`.
    """

    def __init__(self, dataset_name: str, *args: Any, use_fast_impl: bool = True, **kwargs: Any):
        """
        Args:
            dataset_name, args, kwargs: as those of `COCOEvaluator`.
            use_fast_impl: use hotcoco, else pycocotools.
        """
        # Detectron2's own fast implementation needs its compiled part.
        super().__init__(dataset_name, *args, use_fast_impl=False, **kwargs)
        self._uses_hotcoco = use_fast_impl and hotcoco is not None
        if use_fast_impl and hotcoco is None:
            self._logger.warning(
                "hotcoco is not installed (pip install hotcoco): pycocotools measures, and takes "
                "many times as long"
            )

    def _eval_predictions(self, predictions: list[dict], img_ids: Sequence[int] | None = None):
        results = list(chain.from_iterable(x["instances"] for x in predictions))
        tasks = sorted(self._tasks or self._tasks_from_predictions(results))
        can_be_fast = results and self._do_evaluation and "keypoints" not in tasks
        if not self._uses_hotcoco or not can_be_fast:
            super()._eval_predictions(predictions, img_ids)
            return
        mapping = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if mapping is not None:
            ids = {index: category_id for category_id, index in mapping.items()}
            results = [{**x, "category_id": ids[x["category_id"]]} for x in results]
        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            with PathManager.open(path, "w") as file:
                json.dump(results, file)
        ground_truth = hotcoco.COCO(PathManager.get_local_path(self._metadata.json_file))
        for task in tasks:
            evaluation = self._measure(ground_truth, results, task, img_ids)
            self._results[task] = self._derive_coco_results(
                evaluation, task, class_names=self._metadata.get("thing_classes")
            )

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Derive the metrics from a `COCOeval` as Detectron2 does, and save precision over recall.

        Args:
            coco_eval: of pycocotools or hotcoco; None if nothing was found.
            iou_type: the task.
            class_names: for the metrics of each class.
        """
        if coco_eval is not None and self._output_dir and iou_type in TASKS:
            classes = self._coco_api.loadCats(coco_eval.params.catIds)
            evaluated = PrecisionRecall.of(coco_eval, [str(c["name"]) for c in classes])
            evaluated.save(self._output_dir, iou_type)
        return super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)

    def _measure(
        self,
        ground_truth: "hotcoco.COCO",
        results: list[dict],
        task: str,
        img_ids: Sequence[int] | None,
    ) -> "hotcoco.COCOeval":
        if task == "segm":  # by the areas of masks, small objects are told from large ones
            results = [{k: v for k, v in x.items() if k != "bbox"} for x in results]
        evaluation = hotcoco.COCOeval(ground_truth, ground_truth.loadRes(results), task)
        evaluation.params.maxDets = sorted(self._max_dets_per_image)  # as pycocotools does
        if img_ids is not None:
            evaluation.params.imgIds = list(img_ids)
        with warnings.catch_warnings():
            # With other limits than COCO's, the last one counts, as in Detectron2.
            warnings.filterwarnings("ignore", "hotcoco: max_dets differ")
            evaluation.run()
        self._logger.info("COCO's metrics of %s:\n%s", task, "\n".join(evaluation.summary_lines()))
        return evaluation
