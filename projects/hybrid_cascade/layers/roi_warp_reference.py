"""RoI warp in plain PyTorch: what `roi_warp` runs where its operator is not compiled.

It computes the same as the kernels in csrc/, in the same order. Autograd derives the gradients.
K: boxes, h, w: samples of a box.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Pixels of a sample that lies outside of the map: they are in the margin of zeros, which begins two
# pixels before the map. The second of the two is the neighbour of the map's first pixel.
OUTSIDE = -2


def _samples(low: Tensor, high: Tensor, count: int, size: int, scale: float, aligned: bool):
    """The first of the two pixels that each sample of an axis reads, and the weight of the second:
    (K, count) each, from the ends (K,) of the boxes."""
    shift = 0.5 if aligned else 0.0
    steps = torch.arange(count, dtype=low.dtype, device=low.device) + shift
    extent = ((high - low) * scale)[:, None]
    position = (low * scale)[:, None] + (steps * extent / count - shift)
    inside = (position >= -1) & (position < size)  # False for NaN
    # The replacement, before anything that could turn a NaN into a gradient.
    position = torch.where(inside, position, OUTSIDE)
    pixel = position.detach().floor()
    return pixel.long(), position - pixel


def roi_warp_reference(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    max_pool: int,
    aligned: bool,
) -> Tensor:
    """`roi_warp` for boxes (K, 5) and checked arguments. It stores all samples, (K, C, h, w)."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    images, channels, height, width = input.shape
    index = boxes[:, 0].detach()
    torch._assert_async(  # an error on the CPU, a device assertion on CUDA
        ((index >= 0) & (index < images)).all(), "roi_warp: image index out of range"
    )
    _, x1, y1, x2, y2 = boxes.to(dtype).unbind(1)
    y, y_weight = _samples(y1, y2, output_size[0], height, spatial_scale, aligned)
    x, x_weight = _samples(x1, x2, output_size[1], width, spatial_scale, aligned)

    padded = F.pad(input, (-OUTSIDE, 1, -OUTSIDE, 1)).permute(0, 2, 3, 1)
    image = index.long()[:, None, None]
    y, x = (y - OUTSIDE)[:, :, None], (x - OUTSIDE)[:, None, :]
    y_weight, x_weight = y_weight[:, :, None, None], x_weight[:, None, :, None]

    def column(x: Tensor) -> Tensor:  # interpolated along y: (K, h, w, C)
        top, bottom = padded[image, y, x].to(dtype), padded[image, y + 1, x].to(dtype)
        return top + y_weight * (bottom - top)

    left, right = column(x), column(x + 1)
    samples = (left + x_weight * (right - left)).permute(0, 3, 1, 2)
    return F.max_pool2d(samples, max_pool).to(input.dtype).contiguous()
