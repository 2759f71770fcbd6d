"""Boxes that a stage of the cascade predicts for each class, and which of them goes on.

R RoIs, K instance classes.
"""

import torch


def predicted_classes(logits: torch.Tensor, gt_classes: torch.Tensor | None) -> torch.Tensor:
    """Return the classes (R,) by whose deltas RoIs move: the best one, the background left out.

    In training, positive RoIs move by the deltas of their own class, the only ones that are
    trained, as in MMDetection.

    Args:
        logits: (R, K + 1), background last.
        gt_classes: (R,) in [0, K], K for the background; None at inference.
    """
    best = logits[:, :-1].argmax(dim=1)
    if gt_classes is None:
        return best
    return torch.where(gt_classes == logits.shape[1] - 1, best, gt_classes)


def boxes_of_classes(boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the box (R, 4) of one class for each RoI.

    Args:
        boxes: (R, 4 K).
        classes: (R,) in [0, K).
    """
    # The shape of a tensor, unlike len(), stays variable in a trace.
    index = torch.arange(boxes.shape[0], device=boxes.device)
    return boxes.unflatten(1, (-1, 4))[index, classes]
