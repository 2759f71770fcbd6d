"""Mask voting (MNC, arXiv 1512.04412, at inference): instances that overlap agree on one mask.

R instances, K classes, D detections that remain, M the side of an instance's mask in cells, H x W
the size of the image. The default thresholds are those of the code that the paper's authors
released.
"""

import torch
from detectron2.layers import batched_nms
from detectron2.structures import BitMasks, Boxes, Instances, ROIMasks, pairwise_iou
from torch import Tensor
from torch.nn import functional as F

from ...layers.checks import FLOATS, check_in_unit_interval, check_pair, check_tensors

MOST_PIXELS = 2**16  # along each axis of an image


class ImageMasks(ROIMasks):
    """Masks (D, H, W) of the whole image, which `detector_postprocess` resizes with it.

    Detectron2 takes the "pred_masks" of detections for probabilities of the inside of boxes,
    (D, 1, M, M) or `ROIMasks`. This class stands there for masks that know their place, such as
    those of `mask_voting`.
    """

    def to(self, device: torch.device) -> "ImageMasks":
        return ImageMasks(super().to(device).tensor)

    def __getitem__(self, item: slice | Tensor) -> "ImageMasks":
        """Return the chosen masks. As in `ROIMasks`, an int raises a ValueError."""
        return ImageMasks(super().__getitem__(item).tensor)

    def to_bitmasks(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Return the masks in another size.

        Args:
            boxes: not used, as the masks know their place.
            height, width: size of the result, in pixels.
            threshold: pixels where the resized (bilinear) masks reach this value are set.
        """
        resized = self.tensor.new_empty((len(self), height, width), dtype=torch.bool)
        # A few at a time, as floats take four times the memory.
        for target, masks in zip(resized.split(16), self.tensor.split(16), strict=True):
            floats = F.interpolate(masks[:, None].float(), (height, width), mode="bilinear")
            torch.ge(floats[:, 0], threshold, out=target)
        return BitMasks(resized)


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
    score_thresh: float = 0.0,
    binarize_before_voting: bool = False,
) -> Instances:
    """Return the detections of an image, each with the mask that the instances around it vote for.

    NMS first chooses the detections of each class. Then all R instances whose boxes have an IoU of
    at least `merge_iou` with a detection's box vote on each pixel of its mask. Their weights are
    their scores for the detection's class, normalised to sum 1. The vote of an instance is the
    probability that its own mask, pasted into the image, has there, as in the paper. With
    `binarize_before_voting` it is 1 if this probability reaches `mask_threshold`, and 0 otherwise.
    The pixel is set if the weighted sum of the votes reaches `mask_threshold`.

    Masks are pasted as `detectron2.layers.paste_masks_in_image` does it: bilinearly, with zeros
    around the outermost cells. On the CPU that function cuts masks off one or two pixels outside
    their boxes. This one cuts nothing off, and gives the same masks on all devices.

    Instances whose boxes have no area, or are reversed, have no masks; they are left out. A
    detection whose mask comes out empty, for example because its box is outside the image, is
    dropped, and no other takes its place among the `topk`.

    Args:
        boxes: (R, 4), XYXY, in pixels.
        masks: (R, M, M), probabilities of the inside of the boxes.
        scores: (R, K), probabilities of the classes, without the background; not NaN.
        image_size: (H, W), in pixels, each in [1, 65536].
        nms_iou: in [0, 1]; NMS suppresses boxes of a higher IoU with a better one of their class.
        merge_iou: in [0, 1].
        mask_threshold: in (0, 1].
        topk: the most detections of an image, over all classes; the best scores are kept.
        score_thresh: detections have higher scores than this; not negative. It saves time, and
            changes no other detection, as instances of all scores vote. A score of 0 is never a
            detection, because it leaves no weights to normalise.
        binarize_before_voting: see above. The code that the authors released votes with
            probabilities on GPUs, and with binarized masks on CPUs.

    Returns:
        D instances, by descending score, with "pred_boxes" (the tight boxes of the masks; x2 and y2
        are one past the last column and row), "scores" (float32, as given), "pred_classes" (int64)
        and "pred_masks", (D, H, W) bool.

    Raises:
        ValueError: if a shape or a value is wrong, or tensors are on several devices; names the
            argument.
        TypeError: for tensors that are sparse or complex, or sizes that are not whole.
    """
    _check_shapes(boxes, masks, scores)
    check_pair("image_size", image_size, 1, MOST_PIXELS)
    check_in_unit_interval("nms_iou", nms_iou)
    check_in_unit_interval("merge_iou", merge_iou)
    for name, value, is_valid, problem in (
        ("mask_threshold", mask_threshold, 0 < mask_threshold <= 1, "not in (0, 1]"),
        ("topk", topk, isinstance(topk, int) and topk >= 0, "not a whole number of 0 or more"),
        ("score_thresh", score_thresh, score_thresh >= 0, "negative or NaN"),
    ):
        if not is_valid:
            raise ValueError(f"{name}={value} is {problem}")

    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, masks, scores = (x[has_area].float() for x in (boxes, masks, scores))
    kept, classes = _nms(boxes, scores, score_thresh, nms_iou, topk)
    merged = pairwise_iou(Boxes(boxes[kept]), Boxes(boxes)) >= merge_iou
    weights = merged * scores[:, classes].T
    weights /= weights.sum(dim=1, keepdim=True)
    # In half precision an average could fall on the other side of the threshold.
    with torch.autocast(boxes.device.type, enabled=False):
        voted = _vote(boxes, masks, weights, image_size, mask_threshold, binarize_before_voting)
    instances = Instances(
        image_size,
        pred_boxes=_tight_boxes(voted),
        scores=scores[kept, classes],
        pred_classes=classes,
        pred_masks=voted,
    )
    return instances[instances.pred_boxes.nonempty()]


def _check_shapes(boxes: Tensor, masks: Tensor, scores: Tensor) -> None:
    check_tensors(boxes=boxes, masks=masks, scores=scores)
    if scores.dtype not in FLOATS:
        raise TypeError(f"scores must be one of {FLOATS}, got {scores.dtype}")
    for name, tensor in (("boxes", boxes), ("masks", masks), ("scores", scores)):
        if tensor.is_complex():
            raise TypeError(f"{name} must be real numbers, got {tensor.dtype}")
    num_instances = len(boxes) if boxes.dim() else 0
    if boxes.shape != (num_instances, 4):
        raise ValueError(f"boxes must be (R, 4), not {tuple(boxes.shape)}")
    if masks.dim() != 3 or len(masks) != num_instances or masks.shape[1] != masks.shape[2]:
        raise ValueError(f"masks must be ({num_instances}, M, M), not {tuple(masks.shape)}")
    if scores.dim() != 2 or len(scores) != num_instances:
        raise ValueError(f"scores must be ({num_instances}, K), not {tuple(scores.shape)}")
    if scores.numel() and not (scores >= 0).all():
        raise ValueError("scores has numbers that are negative or NaN")


def _nms(
    boxes: Tensor, scores: Tensor, score_thresh: float, nms_iou: float, topk: int
) -> tuple[Tensor, Tensor]:
    """Return the instances (D,) and the classes (D,) that NMS keeps.

    They are ordered by descending score, equal scores by instance, then by class.
    """
    rows, classes = (scores > score_thresh).nonzero(as_tuple=True)
    candidates = scores[rows, classes]
    # batched_nms tells classes apart by shifts that assume coordinates of at least 0.
    origin = boxes.amin() if len(boxes) else 0
    kept = batched_nms(boxes[rows] - origin, candidates, classes, nms_iou)
    kept = kept.sort().values  # NMS leaves the order of equal scores open
    kept = kept[candidates[kept].argsort(descending=True, stable=True)[:topk]]
    return rows[kept], classes[kept]


def _vote(
    boxes: Tensor,
    masks: Tensor,
    weights: Tensor,
    image_size: tuple[int, int],
    mask_threshold: float,
    binarize: bool,
) -> Tensor:
    """Return the masks (D, H, W) that R instances vote for with the weights (D, R).

    It works tile by tile, because most instances are far from any one tile. Those that reach into a
    tile are pasted there once, however many detections they vote for, and a matrix product counts
    the votes.
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
    has_vote = votes.any(dim=0)
    for y in range(0, height, tile):
        in_rows = has_vote & (top < y + tile) & (bottom > y)
        for x in range(0, width, tile):
            here = (in_rows & (left < x + tile) & (right > x)).nonzero()[:, 0]
            detections = votes[:, here].any(dim=1).nonzero()[:, 0]
            if len(detections) == 0:
                continue
            here, detections = here.to(boxes.device), detections.to(boxes.device)
            to_rows = _interpolation(boxes[here, 1::2], masks.shape[1], y, min(y + tile, height))
            to_columns = _interpolation(boxes[here, 0::2], masks.shape[2], x, min(x + tile, width))
            pasted = to_rows @ masks[here] @ to_columns.transpose(1, 2)
            if binarize:
                pasted.ge_(mask_threshold)
            shares = weights[detections][:, here] @ pasted.flatten(start_dim=1)
            voted[detections, y : y + tile, x : x + tile] = (shares >= mask_threshold).unflatten(
                1, pasted.shape[1:]
            )
    return voted


def _interpolation(sides: Tensor, cells: int, start: int, stop: int) -> Tensor:
    """Return the weights (R, stop - start, cells) of masks' cells for pixels along one axis.

    Values belong to the middle of a cell and of a pixel; there are zeros around the cells.

    Args:
        sides: (R, 2), where the boxes start and end.
        cells: of a mask.
        start, stop: the pixels.
    """
    low, high = sides[:, :1], sides[:, 1:]
    middles = torch.arange(start, stop, device=sides.device) + 0.5
    position = (middles - low) * (cells / (high - low)) - 0.5
    distance = position[:, :, None] - torch.arange(cells, device=sides.device)
    return distance.abs_().neg_().add_(1).clamp_(min=0)


def _tight_boxes(masks: Tensor) -> Boxes:
    """Return the tight boxes of masks (D, H, W), without area where a mask is empty."""
    starts, ends = [], []
    for dim in (1, 2):
        # As `any`, which is ten times slower on a CPU.
        occupied = masks.view(torch.uint8).amax(dim=dim) > 0
        index = torch.arange(occupied.shape[1], device=masks.device)
        starts.append(index.where(occupied, occupied.shape[1]).amin(dim=1))
        ends.append((index + 1).where(occupied, 0).amax(dim=1))
    return Boxes(torch.stack(starts + ends, dim=1).float())
