"""RoI warp in plain PyTorch, for `roi_warp` where its operator is not compiled.

It computes the same as the kernels in csrc/, in the same order. Autograd derives the gradients.

Shapes: N images, C channels, R RoIs, H x W samples of a RoI.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# The pixel that a sample outside of the map reads. The map is padded with zeros, which begin two
# pixels before it; the second of the two is also the neighbour of the map's first pixel.
OUTSIDE = -2


def _samples(low: Tensor, high: Tensor, count: int, size: int, scale: float, aligned: bool):
    """Return where the samples of an axis lie, from the ends (R,) of the boxes.

    Returns:
        The first of the two pixels that each sample reads, and the weight of the second, both
        (R, count).
    """
    shift = 0.5 if aligned else 0.0
    steps = torch.arange(count, dtype=low.dtype, device=low.device) + shift
    extent = ((high - low) * scale)[:, None]
    position = (low * scale)[:, None] + (steps * extent / count - shift)
    inside = (position >= -1) & (position < size)  # False for NaN
    # Replaced before anything else is computed, so that NaN gets no gradient.
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
    """Return `roi_warp` for boxes (R, 5) and arguments that are checked already.

    It stores all samples, (R, C, H, W).
    """
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

    def column(x: Tensor) -> Tensor:  # interpolated along y: (R, H, W, C)
        top, bottom = padded[image, y, x].to(dtype), padded[image, y + 1, x].to(dtype)
        return top + y_weight * (bottom - top)

    left, right = column(x), column(x + 1)
    samples = (left + x_weight * (right - left)).permute(0, 3, 1, 2)
    # Channel by channel, as max_pool2d refuses features without channels.
    pooled = F.max_pool2d(samples.flatten(0, 1)[:, None], max_pool)
    return pooled.reshape(*samples.shape[:2], *pooled.shape[2:]).to(input.dtype)
