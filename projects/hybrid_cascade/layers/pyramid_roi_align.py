"""RoIAlign (Mask R-CNN, arXiv 1703.06870, Section 3) of several feature maps, summed.

Shapes: N images, C channels, h x w feature maps, R RoIs, S maps that are summed for a RoI, H x W
output cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_pair, check_positive, check_tensors
from .extension import compiled_devices, register_first_order_autograd

MOST_CELLS = 1024  # along each axis, as in the compiled operator


def _is_compiled() -> bool:
    """Return whether the library has this operator as it is called here, and not an older one."""
    if "cpu" not in compiled_devices or not hasattr(torch.ops.hybrid_cascade, "pyramid_roi_align"):
        return False
    schema = torch.ops.hybrid_cascade.pyramid_roi_align.default._schema
    return "sampling_ratios" in [argument.name for argument in schema.arguments]


is_compiled = _is_compiled()


def _fake_forward(
    maps, boxes, levels, scales, bin_rows, bin_columns, sampling_ratios, aligned, rows, columns
) -> Tensor:
    # One alone on the meta device would lead here.
    check_tensors(**{f"maps[{i}]": m for i, m in enumerate(maps)}, boxes=boxes, levels=levels)
    return maps[0].new_empty(boxes.shape[0], maps[0].shape[1], rows, columns)


def _fake_backward(grad, boxes, levels, images, heights, widths, *pooling) -> list[Tensor]:
    return [
        grad.new_empty(images, grad.shape[1], height, width).to(memory_format=torch.channels_last)
        for height, width in zip(heights, widths, strict=True)
    ]


def _save_for_backward(ctx, inputs, output) -> None:
    maps, boxes, levels, *pooling, _, _ = inputs
    ctx.save_for_backward(boxes, levels)
    heights, widths = zip(*(m.shape[2:] for m in maps), strict=True)
    ctx.arguments = (len(maps[0]), heights, widths, *pooling)


def _backward(ctx, grad):
    grads = torch.ops.hybrid_cascade.pyramid_roi_align_backward(
        grad, *ctx.saved_tensors, *ctx.arguments
    )
    return grads, *[None] * 9


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
    sampling_ratio: int | Sequence[int] = 0,
    aligned: bool | Sequence[bool] = True,
    pooled_sizes: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Pool each box from the maps that `levels` names, and return the sums over these maps.

    The values are those of `torchvision.ops.roi_align` up to rounding, for all maps in one pass. It
    is differentiable once, by the maps. `is_compiled` tells whether the operator is there, and
    `compiled_devices` for which devices. With `torch.use_deterministic_algorithms(True)`, the
    gradients on CUDA are repeatable, and slower.

    Args:
        maps: (N, C, h, w) each, at most 32 of their own sizes, all of one type: float16, bfloat16,
            float32 or float64. Those that are not channels-last are copied.
        boxes: (R, 5), rows of (image index, x1, y1, x2, y2) in pixels of the image: float64 for
            maps of float64, else float32, as sums are. The result is zero for a box with
            coordinates that are not finite, or so large that a bin has more than a million samples
            along an axis. It is also zero for a box that is reversed along an axis, if `aligned`
            and without a `sampling_ratio`.
        levels: (R, S) int64, the indices of the maps that are summed for a box. An index out of
            range adds nothing.
        scales: size of a pixel of the image in pixels of each map, e.g. 1/16; positive.
        output_size: (H, W), each in [1, 1024].
        sampling_ratio: samples of a bin along each axis, at most 1024; 0 or less: as many as the
            bin has pixels. One for all maps, or one for each.
        aligned: as in `torchvision.ops.roi_align`; one for all maps, or one for each.
        pooled_sizes: for each map, the size that RoIAlign pools a box to, before
            `adaptive_avg_pool2d` makes `output_size` of it; each side in [1, 1024]. None:
            `output_size` for all.

    Returns:
        (R, C, H, W), contiguous, in the type of the maps.

    Raises:
        ValueError: for numbers out of these ranges, lists that are not as long as `maps`, or
            tensors on several devices.
        TypeError: for sizes that are no whole numbers, or sparse tensors.
        RuntimeError: for shapes or types of tensors that are not as above.
        IndexError: for an image index out of range. On CUDA it is a device assertion.
    """
    maps, scales = list(maps), list(scales)
    ratios = [sampling_ratio] * len(maps) if isinstance(sampling_ratio, int) else sampling_ratio
    alignments = [aligned] * len(maps) if isinstance(aligned, bool) else aligned
    pooled_sizes = [output_size] * len(maps) if pooled_sizes is None else pooled_sizes
    if not maps:
        raise ValueError("maps is empty, but boxes are pooled from at least one map")
    for name, values in (
        ("scales", scales),
        ("sampling_ratio", ratios),
        ("aligned", alignments),
        ("pooled_sizes", pooled_sizes),
    ):
        if len(values) != len(maps):
            raise ValueError(f"{name} has {len(values)} values for {len(maps)} maps")
    check_tensors(boxes=boxes, levels=levels, **{f"maps[{i}]": m for i, m in enumerate(maps)})
    check_pair("output_size", output_size, 1, MOST_CELLS)
    for pooled_size, scale, ratio in zip(pooled_sizes, scales, ratios, strict=True):
        check_pair("pooled_sizes", pooled_size, 1, MOST_CELLS)
        check_positive("scales", scale)
        if not isinstance(ratio, int) or ratio > MOST_CELLS:
            raise ValueError(
                f"sampling_ratio must be whole numbers of at most {MOST_CELLS}, got {ratio!r}"
            )
    rows, columns = zip(*pooled_sizes, strict=True)
    return torch.ops.hybrid_cascade.pyramid_roi_align(
        maps, boxes, levels, scales, rows, columns, ratios, alignments, *output_size
    )
