"""Mask voting (MNC, arXiv 1512.04412, at inference): instances that overlap agree on one mask.

R: instances, N: classes, S: survivors of non-maximum suppression, m: side of an instance's mask in
cells, (H, W): size of the image. The default thresholds are those of the code that the paper's
authors released.
"""

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor


@torch.no_grad()
def mask_voting(
    boxes: Tensor,
    masks: Tensor,
    scores: Tensor,
    image_size: tuple[int, int],
    nms_iou: float = 0.3,
    merge_iou: float = 0.5,
    mask_threshold: float = 0.4,
    topk: int = 100,
    score_threshold: float = 0.0,
) -> Instances:
    """Detections of one image, each with the mask that the instances around it vote for.

    Class by class, boxes are suppressed by score. All R instances whose box has an IoU of at least
    `merge_iou` with a survivor's vote on each pixel of its mask, with their scores of the
    survivor's class, normalised to sum 1, as weights. An instance votes for a pixel where its own
    mask, pasted into the image, reaches `mask_threshold`; a pixel is set where the votes do.

    Masks are pasted as `detectron2.layers.paste_masks_in_image` pastes them, bilinear with zeros
    beyond the outermost cells. On the CPU that function cuts masks off one or two pixels outside
    their boxes. This one cuts nothing off, and gives the same masks on all devices.

    An instance whose box has no area, or is reversed, has no mask and takes no part. A survivor
    whose mask is empty, say because its box is outside the image, is dropped after `topk`.

    Args:
        boxes: (R, 4), XYXY, in pixels.
        masks: (R, m, m), probabilities of the inside of the boxes.
        scores: (R, N), probabilities of the classes, without the background.
        image_size: (H, W), in pixels.
        nms_iou: boxes of a higher IoU with a survivor of their class are suppressed.
        merge_iou: in [0, 1].
        mask_threshold: in (0, 1].
        topk: the most survivors of an image, over all classes, best scores first.
        score_threshold: survivors have a higher score than this. It saves time, and removes the
            survivors that it names, no others: all instances vote, whatever their scores. Scores
            of 0 never survive, as they leave no weights to normalise.

    Returns:
        Instances, by descending score, with "pred_boxes" (the tight boxes of the masks, x2 and y2
        one past the last column and row), "scores" (float32; those of the survivors),
        "pred_classes" (int64) and "pred_masks", (S, H, W) bool.

    Raises:
        ValueError: names the argument whose shape or value is wrong.
    """
    num_instances = len(boxes)
    if boxes.shape != (num_instances, 4):
        raise ValueError(f"boxes must be (R, 4), not {tuple(boxes.shape)}")
    if masks.dim() != 3 or len(masks) != num_instances or masks.shape[1] != masks.shape[2]:
        raise ValueError(f"masks must be ({num_instances}, m, m), not {tuple(masks.shape)}")
    if scores.dim() != 2 or len(scores) != num_instances:
        raise ValueError(f"scores must be ({num_instances}, N), not {tuple(scores.shape)}")
    if not 0 <= merge_iou <= 1:
        raise ValueError(f"merge_iou={merge_iou} is not in [0, 1]")
    if not 0 < mask_threshold <= 1:
        raise ValueError(f"mask_threshold={mask_threshold} is not in (0, 1]")
    if topk < 0:
        raise ValueError(f"topk={topk} is negative")
    if score_threshold < 0:
        raise ValueError(f"score_threshold={score_threshold} is negative")

    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, masks, scores = (x[has_area].float() for x in (boxes, masks, scores))
    survivors, classes = _survivors(boxes, scores, score_threshold, nms_iou, topk)
    merged = pairwise_iou(Boxes(boxes[survivors]), Boxes(boxes)) >= merge_iou
    weights = merged * scores[:, classes].T
    weights /= weights.sum(dim=1, keepdim=True)
    # In half precision an average could fall on the other side of the threshold.
    with torch.autocast(boxes.device.type, enabled=False):
        voted = _vote(boxes, masks, weights, image_size, mask_threshold)
    instances = Instances(
        image_size,
        pred_boxes=_tight_boxes(voted),
        scores=scores[survivors, classes],
        pred_classes=classes,
        pred_masks=voted,
    )
    return instances[instances.pred_boxes.nonempty()]


def _survivors(
    boxes: Tensor, scores: Tensor, score_threshold: float, nms_iou: float, topk: int
) -> tuple[Tensor, Tensor]:
    """(S,) instances and (S,) classes, by descending score, then by instance, then by class."""
    rows, classes = (scores > score_threshold).nonzero(as_tuple=True)
    candidates = scores[rows, classes]
    origin = boxes.amin() if len(boxes) else 0  # batched_nms mixes classes up below 0
    kept = batched_nms(boxes[rows] - origin, candidates, classes, nms_iou)
    kept = kept.sort().values  # where the order of equal scores is arbitrary
    kept = kept[candidates[kept].argsort(descending=True, stable=True)[:topk]]
    return rows[kept], classes[kept]


def _vote(
    boxes: Tensor,
    masks: Tensor,
    weights: Tensor,
    image_size: tuple[int, int],
    threshold: float,
) -> Tensor:
    """The masks (S, H, W) that R instances vote for with the weights (S, R).

    It goes through the image tile by tile, as most instances are elsewhere. Those that reach into a
    tile are pasted there once, whatever the number of survivors that they vote for, and a product
    of matrices counts the votes.
    """
    height, width = image_size
    voted = weights.new_zeros((len(weights), height, width), dtype=torch.bool)
    if len(weights) == 0:
        return voted
    # Large enough to keep a GPU busy, or small enough for the caches of a CPU.
    tile = 256 if boxes.is_cuda else 64
    votes = (weights > 0).cpu()
    # A mask fades to zero within half a cell around its box.
    margin = (boxes[:, 2:] - boxes[:, :2]) / (2 * masks.shape[-1])
    left, top = (boxes[:, :2] - margin).cpu().unbind(dim=1)
    right, bottom = (boxes[:, 2:] + margin).cpu().unbind(dim=1)
    in_image = votes.any(dim=0)
    for y in range(0, height, tile):
        in_rows = in_image & (top < y + tile) & (bottom > y)
        for x in range(0, width, tile):
            here = (in_rows & (left < x + tile) & (right > x)).nonzero()[:, 0]
            survivors = votes[:, here].any(dim=1).nonzero()[:, 0]
            if len(survivors) == 0:
                continue
            here, survivors = here.to(boxes.device), survivors.to(boxes.device)
            to_rows = _interpolation(boxes[here, 1::2], masks.shape[1], y, min(y + tile, height))
            to_columns = _interpolation(boxes[here, 0::2], masks.shape[2], x, min(x + tile, width))
            pasted = to_rows @ masks[here] @ to_columns.transpose(1, 2)
            ballots = pasted.ge_(threshold).flatten(start_dim=1)
            shares = weights[survivors][:, here] @ ballots
            voted[survivors, y : y + tile, x : x + tile] = (shares >= threshold).unflatten(
                1, pasted.shape[1:]
            )
    return voted


def _interpolation(sides: Tensor, cells: int, start: int, stop: int) -> Tensor:
    """(R, stop - start, cells): the weights of an instance's cells for pixels along one axis.

    `sides`, (R, 2), are where the boxes start and end. Values are at the middle of cells and of
    pixels, zeros around the cells.
    """
    low, high = sides[:, :1], sides[:, 1:]
    middles = torch.arange(start, stop, device=sides.device) + 0.5
    position = (middles - low) * (cells / (high - low)) - 0.5
    distance = position[:, :, None] - torch.arange(cells, device=sides.device)
    return distance.abs_().neg_().add_(1).clamp_(min=0)


def _tight_boxes(masks: Tensor) -> Boxes:
    """Boxes of (S, H, W) masks, without area where a mask is empty."""
    starts, ends = [], []
    for dim in (1, 2):
        # As `any`, which is ten times slower on a CPU.
        occupied = masks.view(torch.uint8).amax(dim=dim) > 0
        index = torch.arange(occupied.shape[1], device=masks.device)
        starts.append(index.where(occupied, occupied.shape[1]).amin(dim=1))
        ends.append((index + 1).where(occupied, 0).amax(dim=1))
    return Boxes(torch.stack(starts + ends, dim=1).float())
