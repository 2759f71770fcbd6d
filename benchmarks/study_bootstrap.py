"""AP of resampled sets of images, from one matching of detections.

Which object a detection finds does not depend on the other images, so the detections are matched
once, and each resampled set only counts every image's detections and objects as often as it was
drawn. The draws are those of a fixed seed. So replicate b of two models is of the same images, and
the differences of their replicates are a paired bootstrap.

Letters: N images, K classes, D detections, T IoUs, B replicates.
"""

from collections.abc import Collection

import numpy as np
from hotcoco import COCO, COCOeval

REPLICATES = 100
SEED = 0
RECALLS = np.linspace(0, 1, 101)
ALL_AREAS = [0.0, 1e10]


def draws(num_images: int, replicates: int = REPLICATES) -> np.ndarray:
    """Return (B, N) int: how often each image is drawn, N draws in all, for each replicate."""
    chances = np.full(num_images, 1 / num_images)
    return np.random.default_rng(SEED).multinomial(num_images, chances, size=replicates)


def replicated_ap(
    evaluation: COCOeval, weights: np.ndarray, objects: Collection[int] | None = None
) -> np.ndarray:
    """Return COCO's AP, in percent, of sets of images.

    Args:
        evaluation: after `evaluate()`.
        weights: (B, N), how often each image, in the order of the evaluation's, is in a set.
        objects: the ids of the annotations that count; None for all. Detections of others count
            neither as right nor as wrong.

    Returns:
        (B,), the means over the T IoUs and those of the K classes that have objects,
        or NaN if none has.
    """
    place = {image_id: n for n, image_id in enumerate(evaluation.params.imgIds)}
    by_class: dict[int, list[dict]] = {}
    for of_image in evaluation.eval_imgs:
        if of_image is not None and list(of_image["aRng"]) == ALL_AREAS:
            if objects is not None:
                of_image = _of_objects(of_image, objects)
            by_class.setdefault(of_image["category_id"], []).append(of_image)
    aps = [_class_ap(images, place, weights) for images in by_class.values()]
    return 100 * np.ma.masked_invalid(aps).mean(axis=0).filled(np.nan)


def _of_objects(of_image: dict, objects: Collection[int]) -> dict:
    """Return an image's matches in which only some objects count."""
    is_one = np.vectorize(lambda object_id: object_id in objects, otypes=[bool])
    matches = _per_iou(of_image["dtMatches"])
    return of_image | {
        "gtIgnore": np.array(of_image["gtIgnore"], bool) | ~is_one(of_image["gtIds"]),
        "dtIgnore": (_per_iou(of_image["dtIgnore"]) > 0) | ((matches > 0) & ~is_one(matches)),
    }


def _class_ap(images: list[dict], place: dict[int, int], weights: np.ndarray) -> np.ndarray:
    """Return (B,) AP of a class, NaN where a set has none of its objects."""
    objects = np.zeros(weights.shape[1])
    for image in images:
        objects[place[image["image_id"]]] = np.count_nonzero(~np.array(image["gtIgnore"], bool))
    scores = np.concatenate([np.array(image["dtScores"], float) for image in images])
    order = np.argsort(-scores, kind="stable")
    of_image = np.repeat(
        [place[image["image_id"]] for image in images], [len(x["dtScores"]) for x in images]
    )[order]
    # (T, D), by descending score
    found = np.concatenate([_per_iou(x["dtMatches"]) > 0 for x in images], axis=1)[:, order]
    ignored = np.concatenate([_per_iou(x["dtIgnore"]) > 0 for x in images], axis=1)[:, order]
    aps = np.full((len(found), len(weights)), np.nan)
    for b, weight in enumerate(weights):
        total, times = weight @ objects, weight[of_image]
        if total == 0:
            continue
        for t in range(len(found)):
            counted = np.where(ignored[t], 0, times)
            right = np.cumsum(np.where(found[t], counted, 0))
            precision = right / np.maximum(np.cumsum(counted), 1)
            best = np.maximum.accumulate(precision[::-1])[::-1]
            reached = np.searchsorted(right / total, RECALLS, side="left")
            aps[t, b] = np.append(best, 0)[reached].mean()
    return aps.mean(axis=0)


def _per_iou(values: object) -> np.ndarray:
    values = np.array(values, float)
    return values.reshape(len(values), -1)


def match(annotations: str, results: list[dict], task: str) -> COCOeval:
    """Return an evaluation whose detections are matched.

    Args:
        annotations: the file of the ground truth.
        results: detections in COCO's format.
        task: "bbox" or "segm".
    """
    ground_truth = COCO(annotations)
    if task == "segm":
        results = [{k: v for k, v in x.items() if k != "bbox"} for x in results]
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), task)
    evaluation.evaluate()
    return evaluation


def bootstrap_ap(evaluation: COCOeval) -> list[float]:
    """Return AP in percent of all images, then of each replicate, of an evaluation from `match`."""
    num_images = len(evaluation.params.imgIds)
    weights = np.concatenate([np.ones((1, num_images), int), draws(num_images)])
    return replicated_ap(evaluation, weights).round(2).tolist()


def ap_of_objects(evaluation: COCOeval, objects: Collection[int]) -> float:
    """Return AP in percent of some objects, by their annotations' ids: see `replicated_ap`."""
    weights = np.ones((1, len(evaluation.params.imgIds)), int)
    return round(float(replicated_ap(evaluation, weights, objects)[0]), 2)
