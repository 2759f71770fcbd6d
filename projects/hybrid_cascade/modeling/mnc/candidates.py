"""Candidates of MNC's stages, and the ways to make detections of them.

R RoIs, K classes, D detections that remain, M the side of a mask in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.structures import Instances
from torch import Tensor

from .mask_voting import ImageMasks, mask_voting


@dataclass
class Candidates:
    """The predictions of a mask stage and its categorising stage for the RoIs of an image.

    Attributes:
        is_last: whether they come from the last stages that their model runs.
        boxes: (R, 4), the RoIs, XYXY, in pixels.
        masks: (R, M, M), probabilities of the inside of `boxes`.
        scores: (R, K + 1), probabilities by the mask-level classifier, background last.
        box_scores: (R, K + 1), those by the box-level classifier.
        class_boxes: (R, 4 K), the box that the box layers predict for each class; (R, 4) if they
            do not tell classes apart.
    """

    is_last: bool
    boxes: Tensor
    masks: Tensor
    scores: Tensor
    box_scores: Tensor
    class_boxes: Tensor


def vote(
    candidates: Sequence[Candidates],
    image_size: tuple[int, int],
    predictor: FastRCNNOutputLayers,
    *,
    nms_iou: float,
    merge_iou: float,
    mask_threshold: float,
    binarize_before_voting: bool,
) -> Instances:
    """Return the detections of `mask_voting`, with "pred_masks" as `ImageMasks` (D, H, W).

    Args:
        candidates: of one image. All of them vote together.
        image_size: (H, W), in pixels.
        predictor: its score threshold and its number of detections count.
        nms_iou, merge_iou, mask_threshold, binarize_before_voting: see `mask_voting`.
    """
    instances = mask_voting(
        _cat(candidates, "boxes"),
        _cat(candidates, "masks"),
        _cat(candidates, "scores")[:, :-1],
        image_size,
        nms_iou=nms_iou,
        merge_iou=merge_iou,
        mask_threshold=mask_threshold,
        binarize_before_voting=binarize_before_voting,
        topk=predictor.test_topk_per_image,
        score_thresh=predictor.test_score_thresh,
    )
    instances.pred_masks = ImageMasks(instances.pred_masks)
    return instances


def suppress_rois(
    candidates: Sequence[Candidates],
    image_size: tuple[int, int],
    predictor: FastRCNNOutputLayers,
    *,
    nms_iou: float,
) -> Instances:
    """Return the best RoIs after NMS, with their own masks as "pred_masks" (D, 1, M, M).

    Arguments are those of `vote`.
    """
    instances, index = _nms(
        _cat(candidates, "boxes"), _cat(candidates, "scores"), image_size, predictor, nms_iou
    )
    instances.pred_masks = _cat(candidates, "masks")[index][:, None]
    return instances


def suppress_class_boxes(
    candidates: Sequence[Candidates],
    image_size: tuple[int, int],
    predictor: FastRCNNOutputLayers,
    *,
    nms_iou: float,
) -> Instances:
    """Return the best boxes that the box layers predict in the last stages, without masks.

    Their scores are those of the box-level classifier. Arguments are those of `vote`.
    """
    candidates = [c for c in candidates if c.is_last]
    boxes, scores = _cat(candidates, "class_boxes"), _cat(candidates, "box_scores")
    instances, _ = _nms(boxes, scores, image_size, predictor, nms_iou)
    return instances


def _cat(candidates: Sequence[Candidates], field: str) -> Tensor:
    return torch.cat([getattr(c, field) for c in candidates])


def _nms(
    boxes: Tensor,
    scores: Tensor,
    image_size: tuple[int, int],
    predictor: FastRCNNOutputLayers,
    nms_iou: float,
) -> tuple[Instances, Tensor]:
    """Return the detections that are left, and which of the boxes they are."""
    [instances], [index] = fast_rcnn_inference(
        [boxes],
        [scores],
        [image_size],
        predictor.test_score_thresh,
        nms_iou,
        predictor.test_topk_per_image,
    )
    return instances, index
