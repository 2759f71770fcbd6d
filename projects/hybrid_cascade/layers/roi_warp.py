"""RoI warp (MNC, CVPR 2016): bilinear warping of boxes, differentiable by features and by boxes.

N: images, K: boxes, h, w: samples of a box along y and x (h', w' in the paper: H', W').
"""

from __future__ import annotations

import functools
import importlib.machinery
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .extension import register_differentiable_once
from .roi_warp_reference import roi_warp_reference


def _load_operator() -> tuple[frozenset[str], str]:
    """Loads the compiled operator. Returns the device types that it serves, and why no others."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = Path(__file__).parent / f"_C{suffix}"
        if library.exists():
            try:
                torch.ops.load_library(library)
            except OSError as error:  # compiled for another PyTorch
                return frozenset(), f"{library.name} cannot be loaded: {error}"
            if torch.ops.hybrid_cascade.compiled_with_cuda():
                return frozenset({"cpu", "cuda"}), "it is compiled for CPU and CUDA"
            return frozenset({"cpu"}), "it is compiled for the CPU only"
    return frozenset(), "it is not compiled"


compiled_devices, _compiled_reason = _load_operator()


@functools.cache
def _warn_of_reference(device: str) -> None:
    warnings.warn(
        f"roi_warp runs in plain PyTorch on {device}, which is slow, as its operator is missing:"
        f" {_compiled_reason}. docs/roi_warp.md says how to build it.",
        stacklevel=3,
    )


def _fake_forward(
    input, boxes, rows, columns, spatial_scale, max_pool, aligned, keep_argmax
) -> tuple[Tensor, Tensor]:
    shape = (boxes.shape[0], input.shape[1], rows // max_pool, columns // max_pool)
    argmax_shape = shape if keep_argmax and max_pool > 1 else (0,)
    return input.new_empty(shape), input.new_empty(argmax_shape, dtype=torch.uint8)


def _fake_backward(
    grad, input, boxes, argmax, rows, columns, scale, max_pool, aligned, input_grad, boxes_grad
) -> tuple[Tensor, Tensor]:
    return (
        input.new_empty(input.shape if input_grad else (0,)),
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
    register_differentiable_once("roi_warp", _backward, _save_for_backward)


def _with_image_index(boxes: Sequence[Tensor]) -> Tensor:
    """A list of (L, 4), one for each image, as one (K, 5)."""
    for image_boxes in boxes:
        if image_boxes.dim() != 2 or image_boxes.shape[1] != 4:
            raise ValueError(f"boxes of an image must be (L, 4), got {tuple(image_boxes.shape)}")
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
    r"""Warps the features of boxes to a fixed grid: RoI warping of MNC (arXiv 1512.04412).

    .. math::
        F^{roi}(u', v') = \sum_{u, v} \kappa\left(x + \frac{u'}{W'} w - u\right)
            \kappa\left(y + \frac{v'}{H'} h - v\right) F(u, v),
        \qquad \kappa(a) = \max(0, 1 - |a|)

    with (x, y, w, h) the box in feature coordinates, pixel u of the map at coordinate u, and F zero
    outside of the map. It is differentiable, once, by `input` and by the coordinates of `boxes`.

    Where the derivative jumps, one side is chosen, the same on every device: a sample exactly on a
    pixel u has the derivative of the cell [u, u + 1); of equal samples in a window of the max
    pooling, the first in row-major order takes the gradient, as in `max_pool2d`.

    Args:
        input: features (N, C, H, W), float16, bfloat16, float32 or float64, of any strides.
        boxes: (K, 5), rows of (image index, x1, y1, x2, y2), or a list of N tensors (L, 4) of
            (x1, y1, x2, y2), in pixels of the image; of the type of `input`, or float32 or float64.
            Where a coordinate is NaN or infinite, or a sample lies outside of the map, the value
            is 0 and so is the gradient. Reversed boxes are mirrored, and those without area sample
            one line or point.
        output_size: samples of a box, (h, w), or one number for both.
        spatial_scale: size of a pixel of the image in pixels of the map, e.g. 1/16.
        max_pool: k in [1, 16], for which the result is max pooled in windows of k x k, without
            storing all samples; it must divide h and w.
        aligned: False for the equation above. True puts samples in the middle of their part of the
            box, u' + 0.5, and pixel u at u + 0.5, as `torchvision.ops.roi_align(aligned=True)`.

    Returns:
        (K, C, h / max_pool, w / max_pool), contiguous, in the type of `input`. Coordinates and
        sums are computed in float32, or float64 for float64 features; under autocast too.

    Raises:
        ValueError: for a shape, a size or a max_pool that is not as above.
        TypeError: for a type that is not as above.
        IndexError or RuntimeError: for an image index out of range. On CUDA it is a device
            assertion ("roi_warp: image index out of range"), reported by the next synchronising
            call.
    """
    if input.dim() != 4:
        raise ValueError(f"input must be (N, C, H, W), got {tuple(input.shape)}")
    if not isinstance(boxes, Tensor):
        if len(boxes) != input.shape[0]:
            raise ValueError(f"{len(boxes)} lists of boxes for {input.shape[0]} images")
        boxes = _with_image_index(boxes) if len(boxes) else input.new_empty(0, 5)
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be (K, 5), got {tuple(boxes.shape)}")
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point, got {input.dtype}")
    if boxes.dtype not in (input.dtype, torch.float32, torch.float64):
        raise TypeError(f"boxes are {boxes.dtype} for {input.dtype} features")
    if boxes.device != input.device:
        raise ValueError(f"input is on {input.device}, boxes are on {boxes.device}")
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if not 1 <= max_pool <= 16:
        raise ValueError(f"max_pool must be in [1, 16], got {max_pool}")
    if min(rows, columns) < 1 or rows % max_pool or columns % max_pool:
        raise ValueError(
            f"output_size must be positive multiples of {max_pool=}, got {(rows, columns)}"
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
    """`roi_warp` with fixed settings. See there."""

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
        return roi_warp(
            input, boxes, self.output_size, self.spatial_scale, self.max_pool, self.aligned
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"max_pool={self.max_pool}, aligned={self.aligned}"
        )
