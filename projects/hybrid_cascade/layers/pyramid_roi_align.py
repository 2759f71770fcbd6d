"""RoIAlign (Mask R-CNN, arXiv 1703.06870, Section 3) of several feature maps, summed.

Shapes: N images, C channels, h x w feature maps, R RoIs, S maps that are summed for a RoI, H x W
output cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .extension import compiled_devices, register_first_order_autograd

# A library that was compiled before this operator existed has RoI warp alone.
is_compiled = "cpu" in compiled_devices and hasattr(torch.ops.hybrid_cascade, "pyramid_roi_align")


def _fake_forward(
    maps, boxes, levels, scales, bins, rows, columns, sampling_ratio, aligned
) -> Tensor:
    return maps[0].new_empty(boxes.shape[0], maps[0].shape[1], rows, columns)


def _fake_backward(
    grad, boxes, levels, images, heights, widths, scales, bins, sampling_ratio, aligned
) -> list[Tensor]:
    return [
        grad.new_empty(images, grad.shape[1], height, width).to(memory_format=torch.channels_last)
        for height, width in zip(heights, widths, strict=True)
    ]


def _save_for_backward(ctx, inputs, output) -> None:
    maps, boxes, levels, scales, bins, _, _, sampling_ratio, aligned = inputs
    ctx.save_for_backward(boxes, levels)
    sizes = [m.shape[2:] for m in maps]
    ctx.arguments = (
        *(len(maps[0]), [height for height, _ in sizes], [width for _, width in sizes]),
        *(scales, bins, sampling_ratio, aligned),
    )


def _backward(ctx, grad):
    grads = torch.ops.hybrid_cascade.pyramid_roi_align_backward(
        grad, *ctx.saved_tensors, *ctx.arguments
    )
    return grads, *[None] * 8


if is_compiled:
    torch.library.register_fake("hybrid_cascade::pyramid_roi_align", _fake_forward)
    torch.library.register_fake("hybrid_cascade::pyramid_roi_align_backward", _fake_backward)
    register_first_order_autograd("pyramid_roi_align", _backward, _save_for_backward)


def pyramid_roi_align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: tuple[int, int],
    sampling_ratio: int = 0,
    aligned: bool = True,
    bins: Sequence[int] | None = None,
) -> Tensor:
    """Pool each box from the maps that `levels` names, and return the sums over these maps.

    The values are those of `torchvision.ops.roi_align` up to rounding, for all maps in one pass. It
    is differentiable once, by the maps. The operator is compiled for CPUs only; `is_compiled` tells
    whether it is there.

    Args:
        maps: (N, C, h, w) each, of their own sizes, all float32 or all float64. Those that are not
            channels-last are copied.
        boxes: (R, 5), rows of (image index, x1, y1, x2, y2) in pixels of the image, of the type of
            the maps. The result is zero for a box with coordinates that are not finite, or so large
            that a bin has more than a million samples along an axis. It is also zero for a box that
            is reversed along an axis, if `aligned` and without a `sampling_ratio`.
        levels: (R, S) int64, the indices of the maps that are summed for a box. An index out of
            range adds nothing.
        scales: size of a pixel of the image in pixels of each map, e.g. 1/16.
        output_size: (H, W).
        sampling_ratio: samples of a bin along each axis; 0: as many as the bin has pixels.
        aligned: as in `torchvision.ops.roi_align`.
        bins: for each map, the number of RoIAlign's bins along each axis whose mean is a cell, as
            if the map were pooled to `output_size` times this number and then averaged. Default: 1.

    Returns:
        (R, C, H, W), contiguous, in the type of the maps.

    Raises:
        RuntimeError: for shapes or types that are not as above.
        IndexError: for an image index out of range.
    """
    return torch.ops.hybrid_cascade.pyramid_roi_align(
        list(maps),
        boxes,
        levels,
        list(scales),
        [1] * len(maps) if bins is None else list(bins),
        *output_size,
        sampling_ratio,
        aligned,
    )
