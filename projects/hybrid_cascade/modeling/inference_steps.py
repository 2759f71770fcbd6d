"""The steps of an R-CNN's inference, for callers that need some of them or want them in parts.

Between `preprocess_image` and the postprocessing of Detectron2's `GeneralizedRCNN.inference`, they
are: features, proposals, boxes, and masks of given boxes.

Shapes: N images, C channels, K semantic classes, D detections of an image, M the side of a mask,
(H, W) the size of an output, (h, w) that of a feature map.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.structures import ImageList, Instances
from torch import nn
from torch.nn import functional as F

from .cascade.roi_heads import HTCROIHeads


def check_eval_mode(model: nn.Module) -> None:
    """Raise a ValueError if a model is in training mode."""
    if model.training:
        raise ValueError(f"The {type(model).__name__} is in training mode: call model.eval() first")


def extract_features(
    model: GeneralizedRCNN, images: ImageList
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Compute the maps that the RPN and the ROI heads see, and semantic logits.

    Returns:
        The maps (N, C, h, w) by name, and the logits (N, K, h, w), of Detectron2's `PanopticFPN` at
        the size of the padded images; None if the model is neither that nor a `SemanticRCNN`.
    """
    features = model.backbone(images.tensor)
    if hasattr(model, "semantic_branch"):
        features, logits, _ = model.semantic_branch(features, None)
        return features, logits
    if hasattr(model, "sem_seg_head"):
        logits, _ = model.sem_seg_head(features, None)
        return features, logits
    return features, None


def propose(
    model: GeneralizedRCNN,
    images: ImageList,
    features: dict[str, torch.Tensor],
    batched_inputs: list[dict],
    gt_instances: list[Instances] | None = None,
) -> tuple[list[Instances], dict[str, torch.Tensor]]:
    """Return the proposals of each image and, given the ground truth, the losses of the RPN.

    A model without an RPN takes the "proposals" of its inputs.
    """
    if model.proposal_generator is None:
        return [x["proposals"].to(model.device) for x in batched_inputs], {}
    return model.proposal_generator(images, features, gt_instances)


def detect_boxes(
    model: GeneralizedRCNN, batched_inputs: list[dict], *, soft_suppression: bool = True
) -> list[Instances]:
    """Detect as `model.inference(batched_inputs, do_postprocess=False)`, without masks.

    Args:
        model: in eval mode, with `HTCROIHeads` or with Detectron2's `StandardROIHeads`,
            `CascadeROIHeads` or `Res5ROIHeads`.
        batched_inputs: N inputs of the model.
        soft_suppression: where the model has soft-NMS, False leaves it out: the result is all
            candidates above the score threshold.

    Returns:
        Instances with "pred_boxes", "scores" and "pred_classes" for each image, in the frame of the
        input image.

    Raises:
        ValueError: if the model is in training mode.
    """
    check_eval_mode(model)
    images = model.preprocess_image(batched_inputs)
    features, _ = extract_features(model, images)
    proposals, _ = propose(model, images, features, batched_inputs)
    heads = model.roi_heads
    if isinstance(heads, HTCROIHeads):
        return heads.detect_boxes(features, proposals, soft_suppression=soft_suppression)
    # A shallow copy has the same layers. The model itself may be detecting in another thread.
    heads = copy.copy(heads)
    heads.mask_on = heads.keypoint_on = False
    instances, _ = heads(images, features, proposals)
    return instances


def predict_masks(
    heads: ROIHeads, features: dict[str, torch.Tensor], instances: list[Instances]
) -> list[torch.Tensor]:
    """Return the mask probabilities, (D, 1, M, M), of the detections of each image.

    Other than `forward_with_given_boxes`, it leaves `instances` as they are.
    """
    instances = [Instances(i.image_size, **i.get_fields()) for i in instances]
    return [i.pred_masks for i in heads.forward_with_given_boxes(features, instances)]


def resize_semantic_logits(
    branch: nn.Module | None,
    logits: torch.Tensor,
    images: ImageList,
    output_sizes: Sequence[tuple[int, int]],
) -> Iterator[torch.Tensor]:
    """Yield the semantic logits of each image, (K, H, W), without padding, at its output size.

    Args:
        branch: the semantic branch, if there is one. Its logits are those of the pixels whose
            labels it learned: the centers of its cells, or with `label_sampling="corner"` their
            upper left pixels.
        logits: (N, K, h, w), see `extract_features`.
        images: the padded batch.
        output_sizes: (H, W) of each image.
    """
    size = images.tensor.shape[-2:]
    if getattr(branch, "label_sampling", "center") == "corner":
        logits = _spread_from_corners(logits, size)
    else:
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    for logit, image_size, (height, width) in zip(
        logits, images.image_sizes, output_sizes, strict=True
    ):
        yield sem_seg_postprocess(logit, image_size, height, width)


def _spread_from_corners(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize (N, K, h, w), where cell (y, x) is of pixel (y, x) times the stride, to (H, W)."""
    strides = [-(-pixels // cells) for pixels, cells in zip(size, logits.shape[-2:], strict=True)]
    # From the first cell's pixel to the last one's. Those below and right of it are like it.
    inner = [(n - 1) * stride + 1 for n, stride in zip(logits.shape[-2:], strides, strict=True)]
    logits = F.interpolate(logits, size=inner, mode="bilinear", align_corners=True)
    logits = F.pad(logits, (0, strides[1] - 1, 0, strides[0] - 1), mode="replicate")
    return logits[..., : size[0], : size[1]]
