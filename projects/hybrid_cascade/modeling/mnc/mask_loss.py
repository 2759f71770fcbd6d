"""The loss of MNC's mask stage, and the classes of instances whose masks are good enough.

R RoIs, K classes, G ground-truth instances of an image, M the side of a mask in cells.
"""

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads import select_foreground_proposals
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F

UNKNOWN = -1  # the mask-level class of a RoI whose ground truth has no mask


def mask_areas(targets: Instances) -> Tensor:
    """Return the areas (G,) of the masks of an image's ground truth, in pixels.

    Raises:
        ValueError: if it has no masks.
    """
    if not targets.has("gt_masks"):
        raise ValueError(
            "MNC trains on instance masks, and these have none (no gt_masks). Use data with a"
            " segmentation in each annotation, and let the mapper read it: MODEL.MASK_ON True, or"
            " dataloader.train.mapper.use_instance_mask=True"
        )
    masks = targets.gt_masks
    if isinstance(masks, BitMasks):
        return masks.tensor.sum(dim=(1, 2)).float()
    return masks.area().float().to(targets.gt_boxes.device)  # polygons are on the CPU


def mask_loss(
    logits: Tensor,
    instances: list[Instances],
    *,
    mask_threshold: float,
    iou_thresh: float,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """Return the loss of masks in positive RoIs, and the mask-level classes of all RoIs.

    The mask-level class of a RoI is its box-level class if its predicted mask, too, has an IoU of
    at least `iou_thresh` with the ground truth, and K, the background, otherwise. The mean of these
    IoUs is logged as "mask_iou". A positive RoI whose "gt_has_mask" is False takes no part in the
    loss, and its mask-level class is `UNKNOWN`.

    Args:
        logits: (R, M, M), of the mask stage.
        instances: of `match_rois`, for N images with R RoIs in all. "gt_classes" are the box-level
            classes.
        mask_threshold: a pixel belongs to a predicted mask if its probability is at least this.
        iou_thresh: in (0, 1].
        num_classes: K.

    Returns:
        The mean binary cross entropy over all pixels, and the classes (R,).
    """
    positives, selections = select_foreground_proposals(instances, num_classes)
    selection = cat(selections)
    mask_classes = torch.full_like(cat([i.gt_classes for i in instances]), num_classes)
    has_mask = torch.cat(
        [
            i.gt_has_mask if i.has("gt_has_mask") else torch.ones_like(i.gt_classes).bool()
            for i in instances
        ]
    )
    mask_classes[selection & ~has_mask] = UNKNOWN
    selection = selection & has_mask
    positives = [p[p.gt_has_mask] if p.has("gt_has_mask") else p for p in positives]
    positives = [p for p in positives if len(p)]
    if not positives:
        return logits.sum() * 0, mask_classes
    logits = logits[selection]
    with torch.no_grad():
        targets = _masks_inside(positives, logits.shape[-1])
        intersection, union = _overlap(logits.sigmoid() >= mask_threshold, targets, positives)
        get_event_storage().put_scalar("mask_iou", (intersection / union).mean())
        is_alike = intersection >= iou_thresh * union
        classes = cat([p.gt_classes for p in positives])
        mask_classes[selection] = classes.masked_fill(~is_alike, num_classes)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype)), mask_classes


def _masks_inside(positives: list[Instances], side: int) -> Tensor:
    """Return the ground truth's masks (R, M, M) bool inside of RoIs, where M is `side`."""
    return cat(
        [
            p.gt_masks.crop_and_resize(p.proposal_boxes.tensor, side).to(p.proposal_boxes.device)
            for p in positives
        ]
    )


def _overlap(found: Tensor, targets: Tensor, positives: list[Instances]) -> tuple[Tensor, Tensor]:
    """Return the intersection (R,) and the union (R,) of masks and ground truth, in pixels.

    The ground truth outside of a RoI counts as well.

    Args:
        found: (R, M, M) bool, the predicted masks.
        targets: (R, M, M) bool, the masks of the ground truth inside of the RoIs.
        positives: the R RoIs.
    """
    cells = found.shape[-1] ** 2
    boxes = cat([p.proposal_boxes.area() for p in positives])
    areas = cat([p.gt_areas for p in positives])
    intersection = (found & targets).sum(dim=(1, 2)) * boxes / cells
    union = found.sum(dim=(1, 2)) * boxes / cells + areas - intersection
    return intersection, union.clamp(min=1e-6)  # two masks without a pixel are not alike
