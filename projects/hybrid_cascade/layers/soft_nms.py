"""Soft-NMS (Bodla et al., ICCV 2017, arXiv 1704.04503): overlapping boxes lose score, not place.

R: boxes, S: boxes that are kept.
"""

import torch
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor

METHODS = ("linear", "gaussian")


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    method: str,
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> tuple[Tensor, Tensor]:
    """Class by class, keep the best box left, and decay the scores of those that it overlaps.

    With the linear method a box that has an IoU of at least `iou_threshold` with the one kept has
    its score multiplied by 1 - IoU (Eq. 2 of the paper), with the Gaussian one every box has it
    multiplied by exp(-IoU² / sigma) (Eq. 3). All classes take their steps at the same time, so that
    the number of steps is that of the boxes kept of the most frequent class.

    Args:
        boxes: (R, 4), XYXY. Boxes without area overlap nothing.
        scores: (R,), not negative.
        classes: (R,), non-negative integers; boxes of different classes do not meet.
        method: "linear" or "gaussian".
        iou_threshold: N_t of the linear method; the Gaussian one has none.
        sigma: of the Gaussian method.
        score_threshold: boxes whose score is, or falls to, this or less are dropped.

    Returns:
        (S,) indices of the boxes that are kept, and their decayed scores (S,), best first. Of equal
        scores the first comes first.

    Raises:
        ValueError: for another method, a sigma that is not positive, or a negative threshold.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not 'linear' or 'gaussian'")
    if sigma <= 0:
        raise ValueError(f"sigma={sigma} is not positive")
    if score_threshold < 0:
        raise ValueError(f"score_threshold={score_threshold} is negative")
    num_classes = int(classes.max()) + 1 if len(classes) else 0
    decayed = scores.clone()
    kept = torch.zeros_like(scores, dtype=torch.bool)
    left = (scores > score_threshold).nonzero().squeeze(1)
    while len(left) > 0:
        best = _best_of_each_class(decayed[left], classes[left], num_classes)
        kept[left[best]] = True
        iou = matched_pairwise_iou(Boxes(boxes[left]), Boxes(boxes[left[best]])).nan_to_num(0)
        if method == "linear":
            factor = torch.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            factor = torch.exp(-(iou**2) / sigma)
        is_kept = kept[left]
        factor = torch.where(is_kept, 1, factor).to(scores.dtype)
        decayed[left] = decayed[left] * factor
        left = left[~is_kept & (decayed[left] > score_threshold)]
    indices = kept.nonzero().squeeze(1)
    indices = indices[decayed[indices].argsort(descending=True, stable=True)]
    return indices, decayed[indices]


def _best_of_each_class(scores: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """For each box the position of the best box of its class, the first of equal ones."""
    best_score = scores.new_zeros(num_classes).scatter_reduce(0, classes, scores, "amax")
    is_best = scores == best_score[classes]
    positions = torch.arange(len(scores), device=scores.device)
    first = positions.new_full((num_classes,), len(scores))
    first = first.scatter_reduce(0, classes[is_best], positions[is_best], "amin")
    return first[classes]
