"""PASCAL VOC's average precision of masks and boxes: mAP^r and mAP^b, as published for MNC.

mAP^r is from Hariharan et al., "Simultaneous Detection and Segmentation", ECCV 2014. A LazyConfig
that evaluates it beside COCO's metrics:

    from detectron2.config import LazyCall as L
    from hybrid_cascade.evaluation import FastCOCOEvaluator, VOCRegionEvaluator

    dataloader.evaluator = [
        L(FastCOCOEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
        L(VOCRegionEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
    ]

With a YAML config, both evaluate the datasets whose metadata has the `evaluator_type` "voc_region",
such as `sbd_val`.

Shapes: D detections and G ground-truth instances of an image, here those of one class; images of
H x W pixels.
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

# Name -> (key of a detection, key of the ground truth that it is compared with, IoU thresholds).
_MEASURES = {
    "voc_region": ("segmentation", "segmentation", (0.5, 0.7)),
    "voc_box": ("bbox", "bbox", (0.5,)),
    "voc_mask_box": ("mask_bbox", "bbox", (0.5,)),
}
_FIRST_YEAR_WITH_AREA = 2010


class VOCRegionEvaluator(DatasetEvaluator):
    """VOC's AP of each class, and its mean over the classes that have ground truth.

    - "voc_region": mAP^r, masks at IoU 0.5 and 0.7.
    - "voc_box": mAP^b, `pred_boxes` at IoU 0.5. MNC's voted boxes are the tight boxes of its masks;
      with `test_output="boxes"` this is the mAP^b of its box regression.
    - "voc_mask_box": mAP^b of the tight boxes of the masks, at IoU 0.5.

    The detections of a class in all images are sorted by score. Equal scores keep the order of the
    images in the dataset, then of the instances in the model's output, for any number of processes.
    Each detection is compared with one instance only: the one of its class and image that it
    overlaps most. It is a hit if their IoU reaches the threshold and no earlier detection has hit
    this instance. All others, duplicates included, are misses.

    The precision at a recall is the highest one at that recall or a higher one. AP of masks is its
    mean over the recalls 0, 0.1, ..., 1, the rule of VOC until 2009, by which mAP^r is defined. AP
    of boxes follows the rule of the dataset's year: from 2010 on, it is the area under the curve,
    that is, the mean over all recalls from 0 to 1.

    Coordinates are continuous, as everywhere in Detectron2: a box over pixels 3 to 5 has width 3.
    VOC computes the same IoU: the corners of its boxes are inclusive, and it adds 1 to their sizes.

    Crowds (SBD has none) are treated as VOC treats "difficult" objects: they need not be found, and
    a detection that would be a miss does not count if the part of it that lies in a crowd of its
    class reaches the threshold.
    """

    def __init__(
        self, dataset_name: str, *, year: int | None = None, distributed: bool = True
    ) -> None:
        """
        Args:
            dataset_name: a registered dataset whose masks are polygons or run-length encoded, as
                those of `register_coco_json` are.
            year: of VOC, whose rule the AP of boxes follows: eleven recalls in 2007, the area under
                the curve in 2012. None for the `year` in the dataset's metadata, and for 2012 if
                there is none.
            distributed: collect the detections of all processes. Otherwise each process evaluates
                its own.

        Raises:
            ValueError: if an instance of the dataset has no mask, or `year` is before 2007.
        """
        metadata = MetadataCatalog.get(dataset_name)
        year = metadata.get("year", 2012) if year is None else year
        if year < 2007:
            raise ValueError(f"year={year}: the rules are those of VOC 2007 and later")
        self._has_area = year >= _FIRST_YEAR_WITH_AREA
        self._distributed = distributed
        # Image id -> class -> instances, in the order of the dataset.
        self._ground_truth = {}
        self._sizes = {}
        for image in DatasetCatalog.get(dataset_name):
            instances = self._ground_truth[image["image_id"]] = defaultdict(list)
            size = self._sizes[image["image_id"]] = image["height"], image["width"]
            for annotation in image.get("annotations", ()):
                if not annotation.get("segmentation"):
                    raise ValueError(
                        f"'{image['file_name']}' of the dataset '{dataset_name}' has an instance "
                        "without `segmentation`: VOCRegionEvaluator needs the masks of all."
                    )
                instances[annotation["category_id"]].append(_to_ground_truth(annotation, size))
        self._class_names = metadata.thing_classes
        self.reset()

    def reset(self) -> None:
        self._detections = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Remember the detections of a batch of images.

        Args:
            inputs: a dict for each image, with "image_id".
            outputs: a dict for each image, with "instances", which have `pred_boxes`, `scores`,
                `pred_classes` and, if the model has masks, `pred_masks`: (D, H, W) bool, where
                H x W is the size of the image in the dataset.

        Raises:
            ValueError: if masks have another size than the image.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id, instances = image["image_id"], output["instances"].to("cpu")
            has_masks = instances.has("pred_masks")
            size = tuple(instances.pred_masks.shape[1:]) if has_masks else None
            if has_masks and len(instances) and size != self._sizes.get(image_id):
                raise ValueError(
                    f"Image {image_id} has masks of height and width {size}, but in the "
                    f"dataset it is {self._sizes.get(image_id)}: masks must have the original size."
                )
            for detection in instances_to_coco_json(instances, image_id):
                if has_masks:
                    detection["mask_bbox"] = mask_util.toBbox(detection["segmentation"]).tolist()
                self._detections.append(detection)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compare all detections since `reset` with the ground truth of the whole dataset.

        Returns:
            On the main process, in percent: {"voc_region": {"AP50", "AP70", "AP50-<class>", ...},
            "voc_box": {"AP50", ...}, "voc_mask_box": {"AP50", ...}}. Detections without masks give
            "voc_box" alone. A class without ground truth is NaN. On other processes: {}.
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
            iou_threshs = _MEASURES[measure][2]
            per_class = np.array(
                [
                    self._average_precisions(label, of_class, measure)
                    for label, of_class in enumerate(by_class)
                ]
            )
            for values, iou_thresh in zip(100 * per_class.T, iou_threshs, strict=True):
                metric = f"AP{100 * iou_thresh:.0f}"
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
        """Return the AP, 0 to 1, of a class at each IoU threshold of a measure.

        Args:
            label: the class.
            detections: those of the class in all images, sorted by score.
            measure: a key of `_MEASURES`.
        """
        detection_key, ground_truth_key, iou_threshs = _MEASURES[measure]
        instances = {i: of_image.get(label, []) for i, of_image in self._ground_truth.items()}
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
            )  # (D, G); for a crowd, the part of the detection that lies in it
            for index, row in zip(indices, ious, strict=True):
                overlaps[index] = row
        image_ids = [detection["image_id"] for detection in detections]
        has_area = self._has_area and measure != "voc_region"
        average = _area_under_curve if has_area else _mean_at_eleven_recalls
        return [
            average(_find_hits(overlaps, image_ids, is_crowd, iou_thresh), num_instances)
            for iou_thresh in iou_threshs
        ]


def _to_ground_truth(annotation: dict, size: tuple[int, int]) -> dict:
    """Return an instance as the measures need it: an RLE and a box [x, y, width, height]."""
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
    iou_thresh: float,
) -> np.ndarray:
    """Return for each detection whether it is a hit; those that crowds excuse are left out.

    Args:
        overlaps: for each detection, sorted by score, its overlap (G,) with the instances.
        image_ids: for each detection, its image.
        is_crowd: for each image, which of its instances (G,) are crowds.
        iou_thresh: the overlap from which on a detection is a hit, or excused.
    """
    hits = []
    taken = set()
    for row, image_id in zip(overlaps, image_ids, strict=True):
        alone = np.where(is_crowd[image_id], -1, row)
        best = int(alone.argmax()) if len(row) else None
        hit = best is not None and alone[best] >= iou_thresh and (image_id, best) not in taken
        if hit:
            taken.add((image_id, best))
        elif np.any(row[is_crowd[image_id]] >= iou_thresh):
            continue
        hits.append(hit)
    return np.array(hits, bool)


def _area_under_curve(hits: np.ndarray, num_instances: int) -> float:
    """Return VOC's AP from 2010 on, 0 to 1; NaN without instances.

    Each hit raises the recall by 1 / `num_instances`.
    """
    if num_instances == 0:
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest[hits].sum() / num_instances)


def _mean_at_eleven_recalls(hits: np.ndarray, num_instances: int) -> float:
    """Return VOC's AP until 2009, 0 to 1; NaN without instances."""
    if num_instances == 0:
        return float("nan")
    num_hits = np.cumsum(hits)
    precision = num_hits / np.arange(1, len(hits) + 1)
    # Compare integers: in floating point, 3 of 10 would not reach the recall 3 * 0.1.
    reached = 10 * num_hits >= num_instances * np.arange(11)[:, None]
    return float(np.where(reached, precision, 0).max(axis=1, initial=0).mean())
