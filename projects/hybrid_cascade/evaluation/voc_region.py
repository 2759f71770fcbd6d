"""PASCAL VOC's average precision of masks and boxes: mAP^r and mAP^b of SDS and MNC.

mAP^r is from Hariharan et al., "Simultaneous Detection and Segmentation", ECCV 2014. In a
LazyConfig, beside COCO's metrics:

    from detectron2.config import LazyCall as L
    from detectron2.evaluation import COCOEvaluator
    from hybrid_cascade.evaluation import VOCRegionEvaluator

    dataloader.evaluator = [
        L(COCOEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
        L(VOCRegionEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
    ]

YAML configs use both on data sets that are registered with the `evaluator_type` "voc_region", as
`sbd_val` is.

Letters in shapes: D detections of a class in an image, G ground-truth instances.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode
from detectron2.utils import comm
from tabulate import tabulate

logger = logging.getLogger(__name__)

# By name: what of a detection is compared with what of the ground truth, and IoU thresholds.
_MEASURES = {
    "voc_region": ("segmentation", "segmentation", (0.5, 0.7)),
    "voc_box": ("bbox", "bbox", (0.5,)),
    "voc_mask_box": ("mask_bbox", "bbox", (0.5,)),
}


class VOCRegionEvaluator(DatasetEvaluator):
    """VOC's AP for each class and its mean over the classes that have ground truth.

    - "voc_region": mAP^r, masks at IoU 0.5 and 0.7.
    - "voc_box": mAP^b, `pred_boxes` at IoU 0.5. MNC's voted boxes are tight to masks; with
      `test_output="boxes"` this is the mAP^b of its box layers.
    - "voc_mask_box": mAP^b of the tight boxes of the masks, at IoU 0.5.

    The detections of a class in all images are taken in the order of their scores; those of equal
    scores in the order of the images in the data set, then of the instances in the model's output,
    however many processes there are. Each is compared with the one instance of its class and image
    that it overlaps most, and is a hit if their IoU is at least the threshold and no detection
    before has hit it. All others are misses, so duplicates too. AP is the mean, at recalls 0, 0.1,
    ..., 1, of the highest precision at that recall or more (VOC 2007's rule).

    Coordinates are continuous, as everywhere in Detectron2: a box over pixels 3 to 5 has width 3.
    This is VOC's IoU, whose "+1" belongs to its inclusive corners.

    Crowds (SBD has none) are what "difficult" objects are in VOC: never counted as missed, and a
    detection that would be a miss is left out if enough of it, by the threshold, is in a crowd of
    its class.
    """

    def __init__(self, dataset_name: str, *, distributed: bool = True) -> None:
        """
        Args:
            dataset_name: a registered data set with masks, polygons or run-length encoded, e.g. one
                of `register_coco_json`.
            distributed: collect the detections of all processes; else each evaluates its own.

        Raises:
            ValueError: an instance of the data set has no mask.
        """
        self._distributed = distributed
        # By image id, in the order of the data set: by class, the instances.
        self._ground_truth = {}
        self._sizes = {}
        for image in DatasetCatalog.get(dataset_name):
            instances = self._ground_truth[image["image_id"]] = defaultdict(list)
            size = self._sizes[image["image_id"]] = image["height"], image["width"]
            for annotation in image.get("annotations", ()):
                if not annotation.get("segmentation"):
                    raise ValueError(
                        f"'{image['file_name']}' of the data set '{dataset_name}' has an instance "
                        "without `segmentation`: VOCRegionEvaluator needs the masks of all."
                    )
                instances[annotation["category_id"]].append(_to_ground_truth(annotation, size))
        self._class_names = MetadataCatalog.get(dataset_name).thing_classes
        self.reset()

    def reset(self) -> None:
        self._detections = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """See `DatasetEvaluator.process`.

        Args:
            inputs: with `image_id`.
            outputs: with `instances`, which have `pred_boxes`, `scores`, `pred_classes`,
                `pred_masks` ((N, height, width) bool, of the original image's size) unless the
                model has no masks.

        Raises:
            ValueError: masks are not of the image's size.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id, instances = image["image_id"], output["instances"].to("cpu")
            has_masks = instances.has("pred_masks")
            size = tuple(instances.pred_masks.shape[1:]) if has_masks else None
            if has_masks and len(instances) and size != self._sizes.get(image_id):
                raise ValueError(
                    f"Image {image_id} has masks of height and width {size}, but in the data set "
                    f"it is of {self._sizes.get(image_id)}: masks must be of the original size."
                )
            for detection in instances_to_coco_json(instances, image_id):
                if has_masks:
                    detection["mask_bbox"] = mask_util.toBbox(detection["segmentation"]).tolist()
                self._detections.append(detection)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compare all detections since `reset` with the ground truth of the whole data set.

        Returns:
            On the main process, in percent: {"voc_region": {"AP50", "AP70", "AP50-<class>", ...},
            "voc_box": {"AP50", ...}, "voc_mask_box": {"AP50", ...}}; "voc_box" alone for detections
            without masks; NaN for a class without ground truth. {} on other processes.
        """
        detections = self._detections
        if self._distributed:
            comm.synchronize()
            detections = [d for part in comm.gather(detections, dst=0) for d in part]
            if not comm.is_main_process():
                return {}
        position = {image_id: index for index, image_id in enumerate(self._ground_truth)}
        by_class = [[] for _ in self._class_names]
        for detection in sorted(detections, key=lambda d: (-d["score"], position[d["image_id"]])):
            by_class[detection["category_id"]].append(detection)

        results = {
            measure: {}
            for measure, (key, _, _) in _MEASURES.items()
            if all(key in detection for detection in detections)
        }
        table = defaultdict(list)
        for measure in results:
            thresholds = _MEASURES[measure][2]
            per_class = np.array(
                [
                    self._average_precisions(label, of_class, measure)
                    for label, of_class in enumerate(by_class)
                ]
            )
            for values, threshold in zip(100 * per_class.T, thresholds, strict=True):
                metric = f"AP{100 * threshold:.0f}"
                known = values[~np.isnan(values)]
                results[measure][metric] = float(known.mean()) if len(known) else float("nan")
                table["class"] = [*self._class_names, "mean"]
                table[f"{measure} {metric}"] = [*values, results[measure][metric]]
                for name, value in zip(self._class_names, values.tolist(), strict=True):
                    results[measure][f"{metric}-{name}"] = value
        logger.info(
            "VOC's average precision:\n%s",
            tabulate(table, headers="keys", tablefmt="pipe", floatfmt=".2f"),
        )
        return results

    def _average_precisions(
        self, label: int, detections: Sequence[dict], measure: str
    ) -> list[float]:
        """AP of a class at each threshold of the measure, 0 to 1; detections come by score."""
        detection_key, ground_truth_key, thresholds = _MEASURES[measure]
        instances = {i: of_image[label] for i, of_image in self._ground_truth.items()}
        is_crowd = {i: np.array([g["iscrowd"] for g in gt], bool) for i, gt in instances.items()}
        num_instances = sum(int((~crowd).sum()) for crowd in is_crowd.values())
        in_image = defaultdict(list)
        for index, detection in enumerate(detections):
            in_image[detection["image_id"]].append(index)
        overlaps = [np.zeros(0)] * len(detections)  # of each detection: (G,)
        for image_id, indices in in_image.items():
            if not instances[image_id]:
                continue
            ious = mask_util.iou(
                [detections[index][detection_key] for index in indices],
                [instance[ground_truth_key] for instance in instances[image_id]],
                is_crowd[image_id].tolist(),
            )  # (D, G); for a crowd, the part of the detection that it covers
            for index, row in zip(indices, ious, strict=True):
                overlaps[index] = row
        image_ids = [detection["image_id"] for detection in detections]
        return [
            _average_precision(_find_hits(overlaps, image_ids, is_crowd, threshold), num_instances)
            for threshold in thresholds
        ]


def _to_ground_truth(annotation: dict, size: tuple[int, int]) -> dict:
    """What the measures compare with: an RLE and a box [x, y, width, height]."""
    region = annotation["segmentation"]
    if isinstance(region, list):
        region = mask_util.merge(mask_util.frPyObjects(region, *size))
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    return {
        "segmentation": region,
        "bbox": [float(value) for value in box],
        "iscrowd": annotation.get("iscrowd", 0),
    }


def _find_hits(
    overlaps: Sequence[np.ndarray],
    image_ids: Sequence[int],
    is_crowd: dict[int, np.ndarray],
    threshold: float,
) -> np.ndarray:
    """Bool for each detection in order of score, without those that crowds excuse."""
    hits = []
    taken = set()
    for row, image_id in zip(overlaps, image_ids, strict=True):
        alone = np.where(is_crowd[image_id], -1, row)
        best = int(alone.argmax()) if len(row) else None
        hit = best is not None and alone[best] >= threshold and (image_id, best) not in taken
        if hit:
            taken.add((image_id, best))
        elif np.any(row[is_crowd[image_id]] >= threshold):
            continue
        hits.append(hit)
    return np.array(hits, bool)


def _average_precision(hits: np.ndarray, num_instances: int) -> float:
    """VOC 2007's mean over eleven recalls; NaN without instances."""
    if num_instances == 0:
        return float("nan")
    num_hits = np.cumsum(hits)
    precision = num_hits / np.arange(1, len(hits) + 1)
    # Whole numbers: in floating point, 3 of 10 are less than a recall of 3 * 0.1.
    reached = 10 * num_hits >= num_instances * np.arange(11)[:, None]
    return float(np.where(reached, precision, 0).max(axis=1, initial=0).mean())
