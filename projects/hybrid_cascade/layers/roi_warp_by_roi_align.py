"""RoI warp by RoIAlign, for graphs that run where this project's operator is not."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def roi_warp_by_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    max_pool: int,
    aligned: bool,
) -> Tensor:
    """Return `roi_warp` for boxes (R, 5), up to rounding.

    RoIAlign with one sample in each bin takes it from the middle of the bin, as aligned warping
    does. Boxes that are half a bin further to the upper left give the samples of the other one.
    Outside of the map, warping reads zeros, and RoIAlign the last pixel: here one of a border of
    zeros. Boxes must be numbers.
    """
    index, corners = boxes.split([1, 4], dim=1)
    low, high = (corners * spatial_scale).split(2, dim=1)  # (x, y)
    bins = boxes.new_tensor([output_size[1], output_size[0]])
    shift = 0 if aligned else 0.5 - 0.5 * (high - low) / bins
    border = 1
    boxes = torch.cat([index, low + shift + border, high + shift + border], dim=1)
    padded = F.pad(input, (border,) * 4)
    samples = roi_align(padded, boxes, output_size, sampling_ratio=1, aligned=True)
    return samples if max_pool == 1 else F.max_pool2d(samples, max_pool)
