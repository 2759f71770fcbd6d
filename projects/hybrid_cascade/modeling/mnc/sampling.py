"""Draw the RoIs that MNC is trained on, and match them with the ground truth.

R RoIs, K classes, G ground-truth instances of an image.
"""

from collections.abc import Sequence

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor


def append_ground_truth(boxes: Boxes, targets: Instances) -> Boxes:
    """Return boxes (R + G, 4), those of the ground truth last.

    Detectron2's `add_ground_truth_to_proposals` does so for boxes without gradients.
    """
    return Boxes(torch.cat([boxes.tensor, targets.gt_boxes.tensor.to(boxes.tensor)]))


@torch.no_grad()
def draw_rois(
    boxes: Boxes,
    targets: Instances,
    number: int,
    ious: Sequence[float],
    fractions: Sequence[float],
) -> tuple[Tensor, int]:
    """Draw the RoIs of an image to train on, at random, in fractions by their IoU.

    If there are too few positives, other RoIs take their place. Positives never take the place of
    others.

    Args:
        boxes: (R, 4).
        targets: of the image.
        number: of RoIs to draw. There are fewer if the boxes do not suffice.
        ious: lower bounds of the IoU with the nearest ground truth, in descending order: positives
            have at least the first, the second group at least the second, and so on; the last group
            has less than all.
        fractions: of `number`, one for each group.

    Returns:
        The indices of the drawn boxes, positives first, and how many of them are positive.
    """
    if len(targets):
        best = pairwise_iou(targets.gt_boxes, boxes).amax(dim=0)
    else:
        best = boxes.tensor.new_zeros(len(boxes))
    groups = sum((best < iou).long() for iou in ious)
    shuffled = []
    for group in range(len(fractions)):
        members = (groups == group).nonzero()[:, 0]
        shuffled.append(members[torch.randperm(len(members), device=members.device)])
    quotas = [round(number * fraction) for fraction in fractions]
    drawn = [members[:quota] for members, quota in zip(shuffled, quotas, strict=True)]
    others = [members[quota:] for members, quota in zip(shuffled[1:], quotas[1:], strict=True)]
    lacking = max(number - sum(len(d) for d in drawn), 0)
    return torch.cat([*drawn, torch.cat(others)[:lacking]]), len(drawn[0])


def draw_rois_of_images(
    boxes: list[Boxes],
    targets: list[Instances],
    number: int,
    ious: Sequence[float],
    fractions: Sequence[float],
) -> list[Boxes]:
    """Return the drawn RoIs of each image, and log how many are positive and how many are not.

    Arguments are those of `draw_rois`, a list item for each image.
    """
    drawn = [draw_rois(b, t, number, ious, fractions) for b, t in zip(boxes, targets, strict=True)]
    num_positives = sum(positives for _, positives in drawn)
    num_negatives = sum(len(index) for index, _ in drawn) - num_positives
    storage, num_images = get_event_storage(), max(len(drawn), 1)
    storage.put_scalar("roi_head/num_fg_samples", num_positives / num_images)
    storage.put_scalar("roi_head/num_bg_samples", num_negatives / num_images)
    return [b[index] for b, (index, _) in zip(boxes, drawn, strict=True)]


@torch.no_grad()
def match_rois(
    boxes: Boxes, targets: Instances, areas: Tensor | None, matcher: Matcher, num_classes: int
) -> Instances:
    """Return the RoIs of an image with the ground truth that each overlaps most.

    Args:
        boxes: (R, 4).
        targets: of the image.
        areas: (G,), of the ground truth's masks (`mask_areas`); None without ground truth.
        matcher: by the IoU of boxes; its label 0 makes a RoI background.
        num_classes: K.

    Returns:
        "proposal_boxes" without gradients, "gt_classes" (R,), K for the background, and if the
        image has ground truth, "gt_boxes", "gt_masks" and "gt_areas" (R,), and "gt_has_mask" (R,)
        if `targets` have it.
    """
    matched, labels = matcher(pairwise_iou(targets.gt_boxes, boxes))
    instances = Instances(targets.image_size)
    instances.proposal_boxes = Boxes(boxes.tensor.detach())
    if len(targets) == 0:
        instances.gt_classes = torch.full_like(matched, num_classes)
        return instances
    instances.gt_classes = targets.gt_classes[matched].masked_fill(labels == 0, num_classes)
    instances.gt_boxes = targets.gt_boxes[matched]
    instances.gt_masks = targets.gt_masks[matched]
    instances.gt_areas = areas[matched]
    if targets.has("gt_has_mask"):
        instances.gt_has_mask = targets.gt_has_mask[matched]
    return instances


def detach_background(boxes: Boxes, is_background: Tensor) -> Boxes:
    """Return the boxes (R, 4); gradients of those where `is_background` (R,) is True end here."""
    return Boxes(torch.where(is_background[:, None], boxes.tensor.detach(), boxes.tensor))
