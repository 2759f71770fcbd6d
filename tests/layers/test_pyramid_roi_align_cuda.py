"""Pyramid RoIAlign on a GPU, against the CPU kernels, whose own tests compare them to torchvision.

python -m pytest tests/layers/test_pyramid_roi_align_cuda.py
"""

import pytest
import torch

from hybrid_cascade.layers import pyramid_roi_align
from hybrid_cascade.layers.extension import compiled_devices, compiled_reason

from .test_pyramid_roi_align import SCALES, levels_of, make_boxes, make_maps, twice_the_last

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif("cuda" not in compiled_devices, reason=compiled_reason),
]


def pool(device, dtype, size=(7, 7), channels=70, **options):
    """Return the output and the gradients of the maps, on the CPU."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    boxes = make_boxes(wide).to(device)
    maps = [m.to(device, dtype).requires_grad_() for m in make_maps(channels, torch.float64)]
    levels = levels_of(boxes).to(device)
    output = pyramid_roi_align(maps, boxes, levels, SCALES, size, **options)
    grad = torch.arange(output.numel(), dtype=torch.float64).reshape(output.shape).sin()
    grads = torch.autograd.grad(output, maps, grad.to(output))
    return [x.detach().cpu() for x in (output, *grads)]


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("channels", [35, 70, 256])  # one or several of them a lane
@pytest.mark.parametrize("size", [(3, 5), (14, 14), (30, 60)])
def test_float64_is_the_same_as_on_the_cpu(size, channels, aligned, sampling_ratio):
    options = {"sampling_ratio": sampling_ratio, "aligned": aligned}
    options["pooled_sizes"] = twice_the_last(*size)
    expected = pool("cpu", torch.float64, size, channels, **options)
    torch.testing.assert_close(pool("cuda", torch.float64, size, channels, **options), expected)


@pytest.mark.parametrize("channels", [70, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_only_rounds(dtype, channels):
    eps = torch.finfo(dtype).eps
    tolerance = {"rtol": 4 * eps, "atol": 8 * eps + 1e-4}
    expected = pool("cpu", dtype, channels=channels)
    torch.testing.assert_close(pool("cuda", dtype, channels=channels), expected, **tolerance)


def test_deterministic_algorithms_are_repeatable():
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (pool("cuda", torch.float32, (12, 15)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(first, pool("cpu", torch.float32, (12, 15)), rtol=1e-3, atol=1e-3)


def test_nothing_waits_for_the_host():
    maps = [m.cuda() for m in make_maps(8, torch.float32)]
    boxes = make_boxes(torch.float32).cuda()
    levels = levels_of(boxes).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pyramid_roi_align(maps, boxes, levels, SCALES, (7, 7))
    finally:
        torch.cuda.set_sync_debug_mode("default")
