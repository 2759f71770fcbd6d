"""Run the mask heads of a cascade, with information flow between them (HTC, Eq. 3 and 4).

R: RoIs of all images, C: channels, K: classes, T: stages, M: side of a mask (28).
"""

from collections.abc import Iterator, Sequence

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_inference
from detectron2.structures import Instances
from torch import nn
from torch.nn import functional as F

from ..module_hooks import has_hooks


def stages_with_masks(mask_stages: str, num_stages: int) -> list[int]:
    """Return the stages, from 0 on, that "first", "last" or "all" stand for."""
    return {"first": [0], "last": [num_stages - 1], "all": [*range(num_stages)]}[mask_stages]


def build_information_flow(mask_heads: Sequence[nn.Module]) -> nn.ModuleList:
    """Build G_t of Eq. 4: a 1x1 convolution and ReLU from each mask head to the next.

    Raises:
        ValueError: if a head has no 3x3 convolutions (`conv_norm_relus`) to connect.
    """
    if not all(getattr(head, "conv_norm_relus", None) for head in mask_heads):
        raise ValueError(
            "mask_information_flow=True needs mask heads with convolutions "
            "(MaskRCNNConvUpsampleHead with two or more conv_dims)"
        )
    flows = nn.ModuleList()
    for before, after in zip(mask_heads, mask_heads[1:]):  # noqa: B905
        flow = Conv2d(
            before.conv_norm_relus[-1].out_channels,
            after.conv_norm_relus[0].in_channels,
            kernel_size=1,
            activation=nn.ReLU(),
        )
        weight_init.c2_msra_fill(flow)
        flows.append(flow)
    return flows


def mask_features(
    mask_heads: Sequence[nn.Module], information_flow: Sequence[nn.Module], x: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield what the last 3x3 convolution of each head computes, m_t^- of Eq. 3 and 4.

    All heads see the same RoI features x, (R, C, M/2, M/2), and gradients flow through all heads.
    """
    y = x
    for index, head in enumerate(mask_heads):
        if index > 0:
            y = x + information_flow[index - 1](y)
        for conv in head.conv_norm_relus:
            y = conv(y)
        yield y


def mask_logits(
    mask_heads: Sequence[nn.Module],
    information_flow: Sequence[nn.Module],
    x: torch.Tensor,
    classes: torch.Tensor,
    wanted: Sequence[int],
) -> list[torch.Tensor]:
    """Compute the mask logits of some of the heads.

    Args:
        mask_heads: the heads of all stages that have one.
        information_flow: a layer between each two heads, as from `build_information_flow`; empty:
            each head sees x alone.
        x: (R, C, M/2, M/2) RoI features.
        classes: (R,) int64 in [0, K).
        wanted: the indices of the heads, in ascending order.

    Returns:
        (R, 1, M, M) logits of each head wanted. A head with layers of its own, or with a last layer
        that `class_mask_logits` has to call, returns them as (R, K, M, M).
    """
    if len(information_flow) > 0:
        features = list(mask_features(mask_heads[: wanted[-1] + 1], information_flow, x))
        return [_predict(mask_heads[i], features[i], classes) for i in wanted]
    logits = []
    for head in (mask_heads[i] for i in wanted):
        # A subclass may have layers of its own.
        if type(head) is MaskRCNNConvUpsampleHead:
            (features,) = mask_features([head], [], x)
            logits.append(_predict(head, features, classes))
        else:
            logits.append(head.layers(x))
    return logits


def _predict(head: nn.Module, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Apply the layers after the last 3x3 convolution: from m_t^- to logits."""
    if not _can_predict_by_corners(head, x):
        return class_mask_logits(head.predictor, head.deconv_relu(head.deconv(x)), classes)
    weight, bias = head.deconv.weight, head.deconv.bias
    logits = []
    for row in range(2):
        for column in range(2):
            corner = F.conv2d(x, weight[:, :, row, column].t()[:, :, None, None], bias)
            logits.append(class_mask_logits(head.predictor, F.relu_(corner), classes))
    return F.pixel_shuffle(torch.cat(logits, dim=1), 2)


def _can_predict_by_corners(head: nn.Module, x: torch.Tensor) -> bool:
    """Return whether `_predict` can compute the four pixels of a cell one after another.

    A deconvolution of 2x2 with stride 2 is a 1x1 convolution for each of them. On a CPU, the four
    maps together take less time than the one of four times their size, (R, C, M, M), does alone:
    each has its place in memory from the one before.
    """
    deconv = head.deconv
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.jit.is_tracing()
        and _is_one_by_one(head.predictor)
        and type(deconv) is nn.ConvTranspose2d
        and deconv.kernel_size == deconv.stride == (2, 2)
        and deconv.padding == deconv.output_padding == (0, 0)
        and deconv.groups == 1
        and type(head.deconv_relu) is nn.ReLU
        and not has_hooks(deconv, head.deconv_relu, head.predictor)
    )


def _is_one_by_one(predictor: nn.Module) -> bool:
    """Return whether a predictor is a 1x1 convolution and nothing else."""
    return (
        type(predictor) in (nn.Conv2d, Conv2d)
        and predictor.kernel_size == predictor.stride == (1, 1)
        and predictor.padding == (0, 0)
        and predictor.groups == 1
        # Detectron2's Conv2d may have these.
        and getattr(predictor, "norm", None) is None
        and getattr(predictor, "activation", None) is None
    )


def class_mask_logits(predictor: nn.Module, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Apply the last layer of a mask head for the one class of each RoI that is asked for.

    Args:
        predictor: maps (R, C, M, M) to (R, K, M, M), or to (R, 1, M, M) if masks do not depend on
            the class.
        x: (R, C, M, M) features.
        classes: (R,) int64 in [0, K).

    Returns:
        (R, 1, M, M) logits. Of a 1x1 convolution, only these are computed, rather than all K. A
        predictor of another kind, or with hooks, is called, and what it returns is returned.
    """
    if not _is_one_by_one(predictor) or predictor.out_channels == 1 or has_hooks(predictor):
        return predictor(x)
    weight = predictor.weight[classes, :, 0, 0]  # (R, C)
    channels, height, width = x.shape[1:]  # sizes that a graph can have without RoIs, too
    logits = torch.bmm(weight[:, None], x.reshape(-1, channels, height * width))
    logits = logits.reshape(-1, 1, height, width)
    if predictor.bias is not None:
        logits = logits + predictor.bias[classes][:, None, None, None]
    return logits


def add_mean_masks(logits_of_heads: Sequence[torch.Tensor], instances: list[Instances]) -> None:
    """Add "pred_masks" to the instances: probabilities, (D, 1, M, M), averaged over the heads.

    They are float32, also of logits in 16 bits.

    Args:
        logits_of_heads: as from `mask_logits`, for the D instances of all images.
        instances: those of each image, with "pred_classes".
    """
    masks_of_heads = []
    for logits in logits_of_heads:
        mask_rcnn_inference(logits.float(), instances)
        masks_of_heads.append([i.pred_masks for i in instances])
    for i, masks in zip(instances, zip(*masks_of_heads, strict=True), strict=True):
        i.pred_masks = torch.stack(masks).mean(dim=0)
