"""RoI warp (MNC, CVPR 2016): bilinear warping of boxes, differentiable by features and by boxes.

Shapes: N images, C channels, h x w feature map, R RoIs, H x W samples of a RoI (H' x W' in the
paper).
"""

import functools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import FLOATS, check_pair, check_positive, check_tensors
from .extension import compiled_devices, compiled_reason, register_first_order_autograd
from .roi_warp_by_roi_align import roi_warp_by_roi_align
from .roi_warp_reference import roi_warp_reference

MOST_SAMPLES = 4096  # along each axis, as in the compiled operator


@functools.cache
def _warn_of_reference(device: str) -> None:
    warnings.warn(
        f"roi_warp runs in plain PyTorch on {device}, which is slow, because its operator is"
        f" missing: {compiled_reason}. docs/roi_warp.md says how to build it.",
        stacklevel=3,
    )


def _fake_forward(
    input, boxes, rows, columns, spatial_scale, max_pool, aligned, keep_argmax
) -> tuple[Tensor, Tensor]:
    check_tensors(input=input, boxes=boxes)  # one alone on the meta device would lead here
    shape = (boxes.shape[0], input.shape[1], rows // max_pool, columns // max_pool)
    argmax_shape = shape if keep_argmax and max_pool > 1 else (0,)
    return input.new_empty(shape), input.new_empty(argmax_shape, dtype=torch.uint8)


def _fake_backward(
    grad, input, boxes, argmax, rows, columns, scale, max_pool, aligned, input_grad, boxes_grad
) -> tuple[Tensor, Tensor]:
    keeps_layout = input.is_cuda and input.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if input_grad and keeps_layout else torch.contiguous_format
    return (
        torch.empty(
            input.shape if input_grad else (0,),
            dtype=input.dtype,
            device=input.device,
            memory_format=layout,
        ),
        boxes.new_empty(boxes.shape if boxes_grad else (0,)),
    )


def _save_for_backward(ctx, inputs, output) -> None:
    input, boxes, *ctx.settings, _ = inputs
    ctx.save_for_backward(input, boxes, output[1])


def _backward(ctx, grad, _):
    needed = ctx.needs_input_grad[:2]
    grads = torch.ops.hybrid_cascade.roi_warp_backward(
        grad, *ctx.saved_tensors, *ctx.settings, *needed
    )
    input_grad, boxes_grad = (grads[i] if needed[i] else None for i in range(2))
    return input_grad, boxes_grad, None, None, None, None, None, None


if compiled_devices:
    torch.library.register_fake("hybrid_cascade::roi_warp", _fake_forward)
    torch.library.register_fake("hybrid_cascade::roi_warp_backward", _fake_backward)
    register_first_order_autograd("roi_warp", _backward, _save_for_backward)


def _with_image_index(boxes: Sequence[Tensor]) -> Tensor:
    """Return the boxes of all images, a list of (boxes, 4), as one tensor (R, 5)."""
    for image_boxes in boxes:
        check_tensors(boxes=image_boxes)
        if image_boxes.dim() != 2 or image_boxes.shape[1] != 4:
            raise ValueError(
                f"boxes of an image must be (boxes, 4), got {tuple(image_boxes.shape)}"
            )
    indices = [b.new_full((b.shape[0], 1), index) for index, b in enumerate(boxes)]
    return torch.cat([torch.cat(indices), torch.cat(list(boxes))], dim=1)


def roi_warp(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    max_pool: int = 1,
    aligned: bool = False,
) -> Tensor:
    r"""Warp the features of boxes to a fixed grid (MNC, arXiv 1512.04412, Section 4).

    .. math::
        F^{roi}(u', v') = \sum_{u, v} \kappa\left(x + \frac{u'}{W'} w - u\right)
            \kappa\left(y + \frac{v'}{H'} h - v\right) F(u, v),
        \qquad \kappa(a) = \max(0, 1 - |a|)

    where (x, y, w, h) is the box in feature coordinates, pixel u of the map lies at coordinate u,
    and F is zero outside of the map. It is differentiable once, by `input` and by the coordinates
    of `boxes`.

    Where the derivative jumps, one side is chosen, the same on every device: a sample exactly on a
    pixel u has the derivative of the cell [u, u + 1); of equal samples in a window of the max
    pooling, the first in row-major order receives the gradient, as in `max_pool2d`.

    Args:
        input: features (N, C, h, w), float16, bfloat16, float32 or float64, of any strides.
        boxes: (R, 5), rows of (image index, x1, y1, x2, y2), or a list of N tensors (boxes, 4) of
            (x1, y1, x2, y2), in pixels of the image. Their type is that of `input`, or float32 or
            float64. If a coordinate is NaN or infinite, or a sample lies outside of the map, the
            value is 0, and so is the gradient. Reversed boxes are mirrored. Boxes without area
            sample one line or point.
        output_size: samples of a box, (H, W), or one number for both; each in [1, 4096].
        spatial_scale: size of a pixel of the image in pixels of the map, e.g. 1/16; positive.
        max_pool: side, in [1, 16], of the windows in which the samples are max pooled; it must
            divide H and W. The samples are not stored.
        aligned: False for the equation above. True puts samples in the middle of their part of the
            box, u' + 0.5, and pixel u at u + 0.5, as `torchvision.ops.roi_align(aligned=True)`.

    Returns:
        (R, C, H / max_pool, W / max_pool), contiguous, in the type of `input`. Coordinates and
        sums are computed in float32, or in float64 for float64 features, under autocast too.

    Raises:
        ValueError: for a wrong shape, output_size, spatial_scale or max_pool, or boxes on another
            device.
        TypeError: for a wrong type, or a sparse tensor.
        IndexError or RuntimeError: for an image index out of range. On CUDA it is a device
            assertion ("roi_warp: image index out of range"), reported by the next synchronising
            call.
    """
    check_tensors(input=input)
    if input.dim() != 4:
        raise ValueError(f"input must be (N, C, h, w), got {tuple(input.shape)}")
    if not isinstance(boxes, Tensor):
        if len(boxes) != input.shape[0]:
            raise ValueError(f"{len(boxes)} lists of boxes for {input.shape[0]} images")
        boxes = _with_image_index(boxes) if len(boxes) else input.new_empty(0, 5)
    check_tensors(input=input, boxes=boxes)
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be (R, 5), got {tuple(boxes.shape)}")
    if input.dtype not in FLOATS:
        raise TypeError(f"input must be float16, bfloat16, float32 or float64, got {input.dtype}")
    if boxes.dtype not in (input.dtype, torch.float32, torch.float64):
        raise TypeError(f"boxes are {boxes.dtype} for {input.dtype} features")
    sides = (output_size, output_size) if isinstance(output_size, int) else output_size
    check_pair("output_size", sides, 1, MOST_SAMPLES)
    rows, columns = sides
    check_positive("spatial_scale", spatial_scale)
    if not isinstance(max_pool, int):
        raise TypeError(f"max_pool must be a whole number, got {max_pool!r}")
    if not 1 <= max_pool <= 16:
        raise ValueError(f"max_pool must be in [1, 16], got {max_pool}")
    if rows % max_pool or columns % max_pool:
        raise ValueError(
            f"output_size must be positive multiples of {max_pool=}, got {(rows, columns)}"
        )
    if torch.onnx.is_in_onnx_export():
        return roi_warp_by_roi_align(
            input, boxes, (rows, columns), spatial_scale, max_pool, aligned
        )
    if input.device.type not in compiled_devices:
        if not torch.compiler.is_compiling():
            _warn_of_reference(input.device.type)
        return roi_warp_reference(input, boxes, (rows, columns), spatial_scale, max_pool, aligned)
    # Only a backward pass needs the indices of the maxima.
    keep_argmax = torch.is_grad_enabled() and (input.requires_grad or boxes.requires_grad)
    return torch.ops.hybrid_cascade.roi_warp(
        input, boxes, rows, columns, spatial_scale, max_pool, aligned, keep_argmax
    )[0]


class ROIWarp(nn.Module):
    """`roi_warp` with fixed settings; see there for the arguments."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        max_pool: int = 1,
        aligned: bool = False,
    ):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.max_pool = max_pool
        self.aligned = aligned

    def forward(self, input: Tensor, boxes: Tensor | Sequence[Tensor]) -> Tensor:
        """Return `roi_warp` of the features and boxes."""
        return roi_warp(
            input, boxes, self.output_size, self.spatial_scale, self.max_pool, self.aligned
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"max_pool={self.max_pool}, aligned={self.aligned}"
        )
