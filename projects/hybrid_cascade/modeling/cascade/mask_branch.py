"""The last layer of a mask head, for the one class of each RoI that is asked for.

R: RoIs, C: channels, K: classes, M: the mask side.
"""

import torch
from detectron2.layers import Conv2d
from torch import nn


def class_mask_logits(predictor: nn.Module, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """
    Args:
        predictor: maps (R, C, M, M) to (R, K, M, M), or to (R, 1, M, M) if masks do not depend on
            the class.
        x: (R, C, M, M) features.
        classes: (R,) int64 in [0, K).

    Returns:
        (R, 1, M, M) logits. Of a 1x1 convolution, only these are computed, rather than all K. A
        predictor of another kind is called, and what it returns is returned.
    """
    one_by_one = (
        type(predictor) in (nn.Conv2d, Conv2d)
        and predictor.kernel_size == predictor.stride == (1, 1)
        and predictor.padding == (0, 0)
        and predictor.groups == 1
        # Detectron2's Conv2d may have these.
        and getattr(predictor, "norm", None) is None
        and getattr(predictor, "activation", None) is None
    )
    if not one_by_one or predictor.out_channels == 1:
        return predictor(x)
    weight = predictor.weight[classes, :, 0, 0]  # (R, C)
    logits = torch.bmm(weight[:, None], x.flatten(2)).unflatten(2, x.shape[-2:])
    if predictor.bias is not None:
        logits = logits + predictor.bias[classes][:, None, None, None]
    return logits
