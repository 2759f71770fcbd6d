"""RoI warp on a GPU, against the CPU kernels, whose own tests compare them to the equation.

python -m pytest tests/layers/test_roi_warp_cuda.py
"""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from hybrid_cascade.layers import roi_warp
from hybrid_cascade.layers.extension import compiled_devices, compiled_reason

from .roi_warp_cases import random_boxes, random_features

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif("cuda" not in compiled_devices, reason=compiled_reason),
]


def gradients(input, boxes, *settings):
    """Return output and gradients, moved to the CPU."""
    input, boxes = input.clone().requires_grad_(), boxes.clone().requires_grad_()
    output = roi_warp(input, boxes, *settings)
    grad = random_features(*output.shape, dtype=output.dtype, seed=1).to(output.device)
    return [t.detach().cpu() for t in (output, *torch.autograd.grad(output, (input, boxes), grad))]


def assert_same_as_cpu(input, boxes, *settings, **tolerance):
    expected = gradients(input, boxes, *settings)
    actual = gradients(input.cuda(), boxes.cuda(), *settings)
    torch.testing.assert_close(actual, expected, **tolerance)


@pytest.mark.parametrize("max_pool", [1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("channels", [1, 32, 130])
def test_float64_is_the_same_as_on_the_cpu(channels, aligned, max_pool):
    input, boxes = random_features(3, channels, 11, 8), random_boxes(20, 3, 11 * 16, 8 * 16)
    assert_same_as_cpu(input, boxes, (6, 12), 1 / 16, max_pool, aligned)


@pytest.mark.parametrize("output_size", [(1, 1), (7, 300), (56, 56), (300, 2)])
def test_outputs_of_any_size(output_size):
    input, boxes = random_features(2, 5, 30, 40), random_boxes(6, 2, 30, 40)
    assert_same_as_cpu(input, boxes, output_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [40, 42])
def test_lower_precision_only_rounds(dtype, channels):
    input = random_features(2, channels, 12, 12, dtype=dtype)
    boxes = random_boxes(30, 2, 12 * 16, 12 * 16, dtype=torch.float32)
    eps = torch.finfo(dtype).eps
    assert_same_as_cpu(input, boxes, 4, 1 / 16, 1, False, rtol=4 * eps, atol=8 * eps + 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kinks_and_ties_choose_the_same_side_as_on_the_cpu(dtype):
    # Features and boxes of whole numbers: all sums are exact, many samples lie on pixels, many tie.
    generator = torch.Generator().manual_seed(0)
    input = torch.randint(-2, 3, (2, 33, 9, 9), generator=generator).to(dtype)
    low = torch.randint(-3, 9, (40, 2), generator=generator)
    size = torch.randint(-2, 3, (40, 2), generator=generator) * 4
    index = torch.randint(2, (40, 1), generator=generator)
    boxes = torch.cat([index, low, low + size], 1).to(dtype)

    def exact_gradients(input, boxes):
        input, boxes = input.clone().requires_grad_(), boxes.clone().requires_grad_()
        output = roi_warp(input, boxes, 8, 1.0, 2)
        output.sum().backward()
        return output.detach().cpu(), input.grad.cpu(), boxes.grad.cpu()

    actual = exact_gradients(input.cuda(), boxes.cuda())
    for ours, expected in zip(actual, exact_gradients(input, boxes), strict=True):
        assert torch.equal(ours, expected)


def test_positions_have_the_same_bits_as_on_the_cpu():
    # A ramp returns the position of each sample, unless a scale that is no power of two is rounded
    # in another way.
    ramp = torch.arange(64.0).expand(1, 1, 64, 64).contiguous()
    boxes = random_boxes(500, 1, 640, 640, dtype=torch.float32)
    ours = roi_warp(ramp.cuda(), boxes.cuda(), 14, 0.1, 1, True).cpu()
    torch.testing.assert_close(ours, roi_warp(ramp, boxes, 14, 0.1, 1, True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "unaligned"])
def test_strides_do_not_matter(layout):
    strided = {
        "channels_last": lambda: (
            random_features(2, 5, 6, 6).cuda().to(memory_format=torch.channels_last)
        ),
        "sliced": lambda: random_features(4, 10, 9, 12).cuda()[1:3, ::2, 2:8, ::2],
        "unaligned": lambda: random_features(577).cuda()[1:].view(2, 6, 6, 8).permute(0, 3, 1, 2),
    }[layout]()
    boxes = random_boxes(7, 2, 6, 6)
    expected = gradients(strided.cpu().contiguous(), boxes, 4, 1.0, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(gradients(strided, boxes.cuda(), 4, 1.0, 2), expected)


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_any_number_of_boxes(count):
    assert_same_as_cpu(random_features(2, 3, 8, 8), random_boxes(count, 2, 8, 8), 4, 1.0, 2)


def test_boxes_without_pixels_give_zero_and_no_gradient():
    nan, inf = float("nan"), float("inf")
    corners = [[-50, -50, -30, -20], [nan, 1, 4, 5], [1, -inf, 4, 5], [1e38, 1, -3e38, 5]]
    boxes = F.pad(torch.tensor(corners), (1, 0)).cuda()
    for result in gradients(random_features(1, 3, 6, 7, dtype=torch.float32).cuda(), boxes, 4):
        assert torch.equal(result, torch.zeros_like(result))


def test_gradcheck_and_opcheck():
    input = random_features(1, 2, 4, 5).cuda().requires_grad_()
    boxes = random_boxes(2, 1, 4, 5, seed=3).cuda()
    index, corners = boxes[:, :1], boxes[:, 1:].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda i, c: roi_warp(i, torch.cat([index, c], 1), 4, 0.9, 2), (input, corners),
        eps=1e-7, atol=1e-5, nondet_tol=1e-10,
    )  # fmt: skip
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.library.opcheck(
            torch.ops.hybrid_cascade.roi_warp,
            (
                *(input.detach().to(memory_format=layout).requires_grad_(), boxes.requires_grad_()),
                *(4, 6, 0.9, 2, False, True),
            ),
        )


def test_deterministic_algorithms_are_repeatable_and_the_same():
    input = random_features(2, 65, 8, 8, dtype=torch.float32)
    boxes = random_boxes(500, 2, 8, 8, dtype=torch.float32)
    expected = gradients(input, boxes, 4, 1.0, 2)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (gradients(input.cuda(), boxes.cuda(), 4, 1.0, 2) for _ in "12")
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(first, expected, rtol=1e-3, atol=1e-3)


def test_autocast_keeps_the_type_of_the_features_and_exact_coordinates():
    boxes = torch.tensor([[0.0, 1001.25, 3.0, 1333.75, 400.0]]).cuda()
    input = random_features(1, 3, 30, 90, dtype=torch.float16).cuda()
    expected = roi_warp(input, boxes, 4, 1 / 16)
    with torch.autocast("cuda"):
        output = roi_warp(input, boxes, 4, 1 / 16)
    assert output.dtype == torch.float16 and torch.equal(output, expected)


def test_compiles_without_a_graph_break():
    input = random_features(2, 3, 8, 8, dtype=torch.float32).cuda()
    boxes = random_boxes(6, 2, 8, 8, dtype=torch.float32).cuda()

    def function(input, boxes):
        return roi_warp(input.relu(), boxes, 4, 0.9, 2) * 2

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input, boxes), function(input, boxes))


@pytest.mark.parametrize("channels", [5, 8])
def test_the_gradient_of_channels_last_features_is_channels_last(channels):
    input = random_features(2, channels, 6, 7).cuda().to(memory_format=torch.channels_last)
    output = roi_warp(input.requires_grad_(), random_boxes(7, 2, 6, 6).cuda(), 4)
    (gradient,) = torch.autograd.grad(output.sum(), input)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_an_input_beyond_two_to_the_31_elements_is_indexed_right():
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GB of GPU memory")
    side = 2**15 + 64  # squared times 2 channels: 2^31 and some
    input = torch.zeros(1, 2, side, side, dtype=torch.float16, device="cuda")
    input[:, :, -8:, -8:] = random_features(1, 2, 8, 8).cuda()
    boxes = torch.tensor([[0.0, side - 8, side - 8, side - 1, side - 1]], device="cuda")
    near = torch.tensor([[0.0, 0, 0, 7, 7]], device="cuda")
    assert torch.equal(
        roi_warp(input, boxes, 7), roi_warp(input[:, :, -8:, -8:].contiguous(), near, 7)
    )


def test_image_index_out_of_range_is_a_device_assertion():
    # In its own process: an assertion leaves the device unusable.
    program = (
        "import torch; from hybrid_cascade.layers import roi_warp;"
        "roi_warp(torch.zeros(1, 1, 4, 4).cuda(), torch.tensor([[1., 0, 0, 2, 2]]).cuda(), 2).cpu()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "image index out of range" in result.stderr
