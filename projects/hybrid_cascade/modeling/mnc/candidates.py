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
        num_stages: how many stages, the RPN among them, they come from: 3, 5, ...
        boxes: (R, 4), the RoIs, XYXY, in pixels.
        masks: (R, M, M), probabilities of the inside of `boxes`.
        scores: (R, K + 1), probabilities, background last.
        class_boxes: (R, 4 K), the box that the box layers predict for each class; (R, 4) if they
            do not tell classes apart.
    """

    num_stages: int
    boxes: Tensor
    masks: Tensor
    scores: Tensor
    class_boxes: Tensor


def vote(
    candidates: Sequence[Candidates],
    image_size: tuple[int, int],
    predictor: FastRCNNOutputLayers,
    *,
    nms_iou: float,
    merge_iou: float,
    mask_threshold: float,
) -> Instances:
    """Return the detections of `mask_voting`, with "pred_masks" as `ImageMasks` (D, H, W).

    Args:
        candidates: of one image. All of them vote together.
        image_size: (H, W), in pixels.
        predictor: its score threshold and its number of detections count.
        nms_iou, merge_iou, mask_threshold: see `mask_voting`.
    """
    instances = mask_voting(
        _cat(candidates, "boxes"),
        _cat(candidates, "masks"),
        _cat(candidates, "scores")[:, :-1],
        image_size,
        nms_iou=nms_iou,
        merge_iou=merge_iou,
        mask_threshold=mask_threshold,
        topk=predictor.test_topk_per_image,
        score_thresh=predictor.test_score_thresh,
    )
    instances.pred_masks = ImageMasks(instances.pred_masks)
    return instances


def suppress_rois(
    candidates: Sequence[Candidates], image_size: tuple[int, int], predictor: FastRCNNOutputLayers
) -> Instances:
    """Return the best RoIs after NMS, with their own masks as "pred_masks" (D, 1, M, M).

    Arguments are those of `vote`; NMS is the predictor's.
    """
    instances, index = _nms(
        _cat(candidates, "boxes"), _cat(candidates, "scores"), image_size, predictor
    )
    instances.pred_masks = _cat(candidates, "masks")[index][:, None]
    return instances


def suppress_class_boxes(
    candidates: Sequence[Candidates], image_size: tuple[int, int], predictor: FastRCNNOutputLayers
) -> Instances:
    """Return the best boxes that the box layers predict in the last stage, without masks.

    Arguments are those of `vote`; NMS is the predictor's.
    """
    last = max(c.num_stages for c in candidates)
    candidates = [c for c in candidates if c.num_stages == last]
    instances, _ = _nms(
        _cat(candidates, "class_boxes"), _cat(candidates, "scores"), image_size, predictor
    )
    return instances


def _cat(candidates: Sequence[Candidates], field: str) -> Tensor:
    return torch.cat([getattr(c, field) for c in candidates])


def _nms(
    boxes: Tensor, scores: Tensor, image_size: tuple[int, int], predictor: FastRCNNOutputLayers
) -> tuple[Instances, Tensor]:
    """Return the detections that are left, and which of the boxes they are."""
    [instances], [index] = fast_rcnn_inference(
        [boxes],
        [scores],
        [image_size],
        predictor.test_score_thresh,
        predictor.test_nms_thresh,
        predictor.test_topk_per_image,
    )
    return instances, index
