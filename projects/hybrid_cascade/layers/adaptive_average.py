"""Adaptive average pooling, also in a graph of ONNX, which has it for one output size only."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def adaptive_average(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Return `F.adaptive_avg_pool2d(x, output_size)`.

    An export to ONNX records products with matrices of weights, whose sizes stay variable.

    Args:
        x: (N, C, h, w).
        output_size: (H, W), each of any size.

    Returns:
        (N, C, H, W).
    """
    if not torch.onnx.is_in_onnx_export():
        return F.adaptive_avg_pool2d(x, output_size)
    rows, columns = map(_weights, x.shape[-2:], output_size)
    return rows.to(x) @ x @ columns.T.to(x)


def _weights(inputs: int, outputs: int) -> Tensor:
    """Return the weight of each input in each output, (outputs, inputs), along one axis."""
    index = torch.arange(outputs)[:, None]
    first = index * inputs // outputs
    end = ((index + 1) * inputs + outputs - 1) // outputs
    cells = torch.arange(inputs)
    return ((first <= cells) & (cells < end)) / (end - first)
