"""Resize maps as torch does, also in a graph of ONNX, whose own operators do not suffice.

There they are products with matrices of weights, whose sizes stay variable.

Shapes: N images, C channels, h x w the size of the input, H x W that of the output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def adaptive_average(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Return `F.adaptive_avg_pool2d(x, output_size)`, which ONNX has for one output size only.

    Args:
        x: (N, C, h, w).
        output_size: (H, W), each of any size.

    Returns:
        (N, C, H, W).
    """
    if not torch.onnx.is_in_onnx_export():
        return F.adaptive_avg_pool2d(x, output_size)
    rows, columns = map(_averaging_weights, x.shape[-2:], output_size)
    return rows.to(x) @ x @ columns.T.to(x)


def resize_bilinear(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Return `F.interpolate(x, output_size, mode="bilinear")`.

    ONNX has this, but onnxruntime rounds positions in the input differently: of noise of 1000 x
    1333 pixels with values up to 255, by up to 0.03.

    Arguments and result are as in `adaptive_average`.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.interpolate(x, output_size, mode="bilinear", align_corners=False)
    rows, columns = map(_bilinear_weights, x.shape[-2:], output_size)
    return rows.to(x) @ x @ columns.T.to(x)


def interpolation_weights(positions: Tensor, cells: int) -> Tensor:
    """Return the weight of each cell in each position, (*, cells), between two cells at most.

    Args:
        positions: (*), where 0 is the center of the first cell, and 1 that of the second. Outside
            of [-1, cells], all weights are 0.
        cells: their number.
    """
    distances = positions[..., None] - torch.arange(cells, device=positions.device)
    return (1 - distances.abs()).clamp(min=0)


def _averaging_weights(inputs: int, outputs: int) -> Tensor:
    """Return the weight of each input in each output, (outputs, inputs), along one axis."""
    index = torch.arange(outputs)[:, None]
    first = index * inputs // outputs
    end = ((index + 1) * inputs + outputs - 1) // outputs
    cells = torch.arange(inputs)
    return ((first <= cells) & (cells < end)) / (end - first)


def _bilinear_weights(inputs: int, outputs: int) -> Tensor:
    """Return the weight of each input in each output, (outputs, inputs), along one axis."""
    size = torch.ones(()) * inputs  # which is a tensor in a trace
    # torch's kernel multiplies and adds with one rounding.
    centers = (torch.arange(outputs) + 0.5).double()
    positions = (centers * (size / outputs).double() - 0.5).float()
    positions = torch.minimum(positions.clamp(min=0), size - 1)
    return interpolation_weights(positions, inputs)
