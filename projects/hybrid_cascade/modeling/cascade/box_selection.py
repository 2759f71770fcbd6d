"""Non-maximum suppression that ends when enough boxes are found.

R: boxes, K: classes.
"""

import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Instances

# How many candidates are tried for each box that is asked for. On photographs, a cascade's boxes
# cluster by the dozen around an object.
CANDIDATES_PER_BOX = 20
# And at least: from 1000 on, torchvision's batched NMS takes classes one by one on a CPU, as it
# does with all candidates. For fewer it shifts boxes by their class, which rounds IoUs differently.
MIN_CANDIDATES = 1100


def best_boxes(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_size: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> Instances:
    """What Detectron2's `fast_rcnn_inference_single_image` selects, with less work.

    Whether NMS keeps a candidate depends on those with higher scores only. So if the best few
    candidates already yield `topk` boxes, they are the result; if not, all are tried. With a low
    `score_thresh`, 1000 boxes of 80 classes are 80 000 candidates, and NMS is quadratic. (On a GPU,
    torchvision computes IoUs of more than 25 000 candidates with other roundings than of few.)

    Args:
        boxes: (R, 4) XYXY, or (R, 4 K).
        scores: (R, K + 1), the last column is the background.
        image_size: (height, width).
        score_thresh, nms_thresh, topk: as in Detectron2; a negative `topk` means all.
    """
    candidates = scores[:, :-1].flatten()
    enough = max(CANDIDATES_PER_BOX * topk, MIN_CANDIDATES)
    if topk > 0 and enough < candidates.numel() and not torch.jit.is_tracing():
        threshold = candidates.topk(enough).values[-1].item()
        if threshold > score_thresh:
            instances, _ = fast_rcnn_inference_single_image(
                boxes, scores, image_size, threshold, nms_thresh, topk
            )
            if len(instances) == topk:
                return instances
    instances, _ = fast_rcnn_inference_single_image(
        boxes, scores, image_size, score_thresh, nms_thresh, topk
    )
    return instances
