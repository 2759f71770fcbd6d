"""What the errors in each image cost.

The cost of an image is the AP50 that the whole evaluation would gain if this image alone had no
errors: its missed objects found with the best score, its wrong detections gone.

Letters: N images, D detections.
"""

import numpy as np

from .evaluation import Evaluation

MAX_CANDIDATES = 1000  # images whose cost is computed; the others have fewer and weaker errors
RECALLS = np.linspace(0, 1, 101)


def image_costs(evaluation: Evaluation) -> np.ndarray:
    """Return the cost of each image in AP50, (N,) float64.

    Of many images, it is computed for those `MAX_CANDIDATES` that have the most errors, wrong
    detections counted by their score; the others' is 0.
    """
    results = evaluation.results
    number = len(results.images)
    class_of = {category["id"]: k for k, category in enumerate(results.categories)}
    images = np.array([d["image_id"] - 1 for d in results.detections], int)
    classes = np.array([class_of[d["category_id"]] for d in results.detections], int)
    scores = np.array([d["score"] for d in results.detections], float)
    right = evaluation.is_right
    objects = [a for a in results.annotations if not a.get("iscrowd")]
    object_images = np.array([a["image_id"] - 1 for a in objects], int)
    object_classes = np.array([class_of[a["category_id"]] for a in objects], int)
    found = set(evaluation.finds.values())
    missed = np.array([a["id"] not in found for a in objects], bool)

    weights = np.bincount(images[right == 0], scores[right == 0], number)
    weights += np.bincount(object_images[missed], minlength=number)
    candidates = np.zeros(number, bool)
    candidates[np.argsort(-weights, kind="stable")[:MAX_CANDIDATES]] = True

    measured = np.unique(object_classes)
    costs = np.zeros(number)
    for k in measured:
        chosen = np.flatnonzero((classes == k) & (right >= 0))
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        is_right, image = right[chosen] == 1, images[chosen]
        missed_in = np.bincount(object_images[missed & (object_classes == k)], minlength=number)
        total = int((object_classes == k).sum())
        before = average_precision(is_right, total)
        wrong_in = np.bincount(image[~is_right], minlength=number)
        for i in np.flatnonzero(candidates & (missed_in + wrong_in > 0)):
            kept = is_right[is_right | (image != i)]
            mended = np.concatenate([np.ones(missed_in[i], bool), kept])
            costs[i] += average_precision(mended, total) - before
    return costs / max(1, len(measured))


def average_precision(is_right: np.ndarray, total: int) -> float:
    """Return COCO's AP at one IoU, the mean of the precision at 101 recalls.

    Args:
        is_right: (D,) bool, whether each detection of a class is right, best score first.
        total: the number of objects of the class, at least 1.
    """
    right = np.cumsum(is_right)
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / total, RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())
