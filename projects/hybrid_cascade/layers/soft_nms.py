"""Soft-NMS (Bodla et al., ICCV 2017, arXiv 1704.04503): lower the scores of overlapping boxes.

Shapes: R boxes, D detections that remain.
"""

import torch
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor

from .checks import FLOATS, check_in_unit_interval, check_tensors

METHODS = ("linear", "gaussian")


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    method: str,
    iou_thresh: float = 0.5,
    sigma: float = 0.5,
    score_thresh: float = 0.001,
) -> tuple[Tensor, Tensor]:
    """Keep the best remaining box of each class, lower the scores of the boxes it overlaps, repeat.

    With the linear method, a box whose IoU with the kept one is at least `iou_thresh` has its score
    multiplied by 1 - IoU (Eq. 2 of the paper). With the Gaussian method, every box has its score
    multiplied by exp(-IoU² / sigma) (Eq. 3). All classes take their steps at the same time, so
    there are as many steps as the most frequent class has boxes that are kept.

    Args:
        boxes: (R, 4), XYXY. Boxes without area overlap nothing.
        scores: (R,), floating point, neither negative nor NaN.
        classes: (R,), non-negative int64; boxes of different classes do not affect each other.
        method: "linear" or "gaussian".
        iou_thresh: N_t of the linear method, in [0, 1]; the Gaussian method does not use it.
        sigma: of the Gaussian method, above 0.
        score_thresh: boxes are dropped once their score is this or less; not negative.

    Returns:
        (D,) indices of the boxes that remain, and their lowered scores (D,), best first. Of equal
        scores the first comes first.

    Raises:
        ValueError: for values or shapes that are not as above, or tensors on several devices; names
            the argument.
        TypeError: for tensors that are sparse or of another type.
    """
    check_tensors(boxes=boxes, scores=scores, classes=classes)
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not 'linear' or 'gaussian'")
    check_in_unit_interval("iou_thresh", iou_thresh)
    if not sigma > 0:  # written so that NaN is refused
        raise ValueError(f"sigma={sigma} is not positive")
    if not score_thresh >= 0:
        raise ValueError(f"score_thresh={score_thresh} is negative or NaN")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (R, 4), got {tuple(boxes.shape)}")
    for name, tensor in (("scores", scores), ("classes", classes)):
        if tensor.shape != boxes.shape[:1]:
            raise ValueError(f"{name} must be ({len(boxes)},), got {tuple(tensor.shape)}")
    if boxes.dtype not in FLOATS or scores.dtype not in FLOATS:
        raise TypeError(
            "boxes and scores must be float16, bfloat16, float32 or float64, got "
            f"{boxes.dtype} and {scores.dtype}"
        )
    if classes.dtype != torch.int64:
        raise TypeError(f"classes must be int64, got {classes.dtype}")
    if len(boxes) and not (scores >= 0).all():
        raise ValueError("scores has numbers that are negative or NaN")
    if len(boxes) and classes.amin() < 0:
        raise ValueError(f"classes has the negative number {int(classes.amin())}")
    names, classes = classes.unique(return_inverse=True)  # numbers may have gaps
    num_classes = len(names)
    decayed = scores.clone()
    kept = torch.zeros_like(scores, dtype=torch.bool)
    left = (scores > score_thresh).nonzero().squeeze(1)
    while len(left) > 0:
        best = _best_of_each_class(decayed[left], classes[left], num_classes)
        kept[left[best]] = True
        iou = matched_pairwise_iou(Boxes(boxes[left]), Boxes(boxes[left[best]])).nan_to_num(0)
        if method == "linear":
            factor = torch.where(iou >= iou_thresh, 1 - iou, 1)
        else:
            factor = torch.exp(-(iou**2) / sigma)
        is_kept = kept[left]
        factor = torch.where(is_kept, 1, factor).to(scores.dtype)
        decayed[left] = decayed[left] * factor
        left = left[~is_kept & (decayed[left] > score_thresh)]
    indices = kept.nonzero().squeeze(1)
    indices = indices[decayed[indices].argsort(descending=True, stable=True)]
    return indices, decayed[indices]


def _best_of_each_class(scores: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Return for each box the index of the best box of its class, the first of equal ones."""
    best_score = scores.new_zeros(num_classes).scatter_reduce(0, classes, scores, "amax")
    is_best = scores == best_score[classes]
    positions = torch.arange(len(scores), device=scores.device)
    first = positions.new_full((num_classes,), len(scores))
    first = first.scatter_reduce(0, classes[is_best], positions[is_best], "amin")
    return first[classes]
