"""Select detections among the scored boxes of an image, by NMS that ends early or by soft-NMS.

R: boxes that are scored, K: classes, D: detections that remain. A candidate is a box together with
one of the classes.
"""

import math

import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Instances

from ...layers.soft_nms import soft_nms

# NMS starts with this many candidates for each box that is asked for. On real images, a cascade
# yields dozens of nearly equal boxes for each object.
CANDIDATES_PER_BOX = 20
# And at least with this many: from 1000 on, torchvision's batched NMS takes classes one by one on a
# CPU, as it does with all candidates. For fewer it shifts boxes by their class, which rounds IoUs
# differently.
MIN_CANDIDATES = 1100


def nms_ending_early(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_size: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> Instances:
    """Return what Detectron2's `fast_rcnn_inference_single_image` selects, with less work.

    Whether NMS keeps a candidate depends on those with higher scores only. So if the best few
    candidates already yield `topk` boxes, they are the result; if not, NMS runs on all. With a low
    `score_thresh`, 1000 boxes of 80 classes are 80 000 candidates, and NMS is quadratic. (On a GPU,
    torchvision computes IoUs of more than 25 000 candidates with other roundings than of few.)

    Args:
        boxes: (R, 4) XYXY in pixels of the image, or (R, 4 K).
        scores: (R, K + 1) probabilities, the last column is the background.
        image_size: (height, width).
        score_thresh, nms_thresh, topk: as in Detectron2; a negative `topk` means all.

    Returns:
        D instances with "pred_boxes", "scores" and "pred_classes", best first.
    """
    candidates = scores[:, :-1].flatten()
    enough = max(CANDIDATES_PER_BOX * topk, MIN_CANDIDATES)
    if not torch.jit.is_tracing() and topk > 0 and enough < candidates.numel():
        score_of_last = candidates.topk(enough).values[-1]
        # A threshold on the device, since reading it here would wait for a GPU.
        instances, _ = fast_rcnn_inference_single_image(
            boxes, scores, image_size, score_of_last.clamp(min=score_thresh), nms_thresh, topk
        )
        if len(instances) == topk or score_of_last <= score_thresh:  # those were all candidates
            return instances
    instances, _ = fast_rcnn_inference_single_image(
        boxes, scores, image_size, score_thresh, nms_thresh, topk
    )
    return instances


def candidates_above(
    boxes: torch.Tensor, scores: torch.Tensor, image_size: tuple[int, int], score_thresh: float
) -> Instances:
    """Return all candidates with a score above `score_thresh`, best first.

    None is suppressed; apart from that, this is Detectron2's `fast_rcnn_inference_single_image`.
    Arguments and fields are as in `nms_ending_early`.
    """
    candidates, _ = fast_rcnn_inference_single_image(
        boxes,
        scores,
        image_size,
        score_thresh,
        nms_thresh=math.inf,  # no IoU is above it
        topk_per_image=-1,  # all
    )
    return candidates


def suppress_softly(
    candidates: Instances,
    method: str,
    iou_thresh: float,
    sigma: float,
    score_thresh: float,
    topk: int,
) -> Instances:
    """Return the best of an image's candidates after soft-NMS, with their decayed scores.

    Args:
        candidates: with "pred_boxes", "scores" and "pred_classes". Not changed.
        method, iou_thresh, sigma, score_thresh: as in `layers.soft_nms`.
        topk: return this many at most; a negative one means all.
    """
    kept, scores = soft_nms(
        candidates.pred_boxes.tensor,
        candidates.scores,
        candidates.pred_classes,
        method,
        iou_thresh,
        sigma,
        score_thresh,
    )
    if topk >= 0:
        kept, scores = kept[:topk], scores[:topk]
    instances = candidates[kept]
    instances.scores = scores
    return instances
