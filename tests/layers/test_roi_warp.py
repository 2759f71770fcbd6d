import contextlib
import os
import shutil
import sys
import warnings

import pytest
import torch
from torch.nn import functional as F

from hybrid_cascade.layers import ROIWarp, roi_warp

from .roi_warp_cases import random_boxes, random_features, warp_by_loop

module = sys.modules["hybrid_cascade.layers.roi_warp"]
needs_operator = pytest.mark.skipif(not module.compiled_devices, reason=module._compiled_reason)


def warp_by_grid_sample(input, boxes, output_size, spatial_scale=1.0, aligned=False):
    """One grid for each box, padded with zeros."""
    height, width = input.shape[-2:]
    shift = 0.5 if aligned else 0.0

    def positions(low, high, count):
        steps = (torch.arange(count, dtype=boxes.dtype) + shift) / count
        return ((low[:, None] + steps * (high - low)[:, None]) * spatial_scale) - shift

    y = positions(boxes[:, 2], boxes[:, 4], output_size[0])
    x = positions(boxes[:, 1], boxes[:, 3], output_size[1])
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    grid = (2 * grid + 1) / torch.tensor([width, height]) - 1
    return F.grid_sample(input[boxes[:, 0].long()], grid, padding_mode="zeros", align_corners=False)


def gradients(function, input, boxes, seed=1):
    input, boxes = input.clone().requires_grad_(), boxes.clone().requires_grad_()
    output = function(input, boxes)
    return torch.autograd.grad(
        output, (input, boxes), random_features(*output.shape, dtype=output.dtype, seed=seed)
    )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 70])
def test_value_is_the_equation(implementation, aligned, channels):
    input = random_features(2, channels, 7, 9)
    boxes = random_boxes(6, 2, 7 * 4, 9 * 4)
    output = roi_warp(input, boxes, (4, 6), 0.25, aligned=aligned)
    assert output.is_contiguous()
    torch.testing.assert_close(output, warp_by_loop(input, boxes, (4, 6), 0.25, aligned))


@pytest.mark.parametrize("max_pool", [1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
def test_value_and_gradients_are_those_of_grid_sample_and_max_pool(
    implementation, aligned, max_pool
):
    input, boxes = random_features(3, 66, 11, 8), random_boxes(20, 3, 11 * 16, 8 * 16)

    def expected(input, boxes):
        return F.max_pool2d(warp_by_grid_sample(input, boxes, (6, 12), 1 / 16, aligned), max_pool)

    def ours(input, boxes):
        return roi_warp(input, boxes, (6, 12), 1 / 16, max_pool, aligned)

    torch.testing.assert_close(ours(input, boxes), expected(input, boxes))
    torch.testing.assert_close(gradients(ours, input, boxes), gradients(expected, input, boxes))


@pytest.mark.parametrize("max_pool", [1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_gradients_pass_gradcheck_away_from_kinks(implementation, aligned, max_pool):
    input = random_features(1, 2, 4, 5).requires_grad_()
    boxes = random_boxes(2, 1, 4, 5, seed=3)
    index, corners = boxes[:, :1], boxes[:, 1:].clone().requires_grad_()

    def function(input, corners):
        return roi_warp(input, torch.cat([index, corners], 1), 4, 0.9, max_pool, aligned)

    assert torch.autograd.gradcheck(function, (input, corners), eps=1e-7, atol=1e-5)


def test_gradient_of_one_argument_alone_is_the_same(implementation):
    input, boxes = random_features(2, 5, 6, 6), random_boxes(5, 2, 6, 6)
    both = gradients(lambda i, b: roi_warp(i, b, 4, max_pool=2), input, boxes)
    for which in (0, 1):
        arguments = [input.clone(), boxes.clone()]
        arguments[which].requires_grad_()
        output = roi_warp(*arguments, 4, max_pool=2)
        (alone,) = torch.autograd.grad(
            output, arguments[which], random_features(*output.shape, seed=1)
        )
        torch.testing.assert_close(alone, both[which])


def test_a_sample_on_a_pixel_has_the_derivative_of_the_cell_after_it(implementation):
    input = torch.tensor([[[[1.0, 3.0, 9.0, 27.0]]]])
    # One sample, at x1: on the pixel before the map, on its pixels, and on the pixel after it.
    for x, derivative in {-1: 1, 0: 2, 1: 6, 2: 18, 3: -27, 4: 0}.items():
        boxes = torch.tensor([[0.0, x, 0.0, x + 1, 1.0]], requires_grad=True)
        roi_warp(input, boxes, 1).sum().backward()
        assert boxes.grad[0, 1].item() == derivative


def test_every_sample_on_a_pixel_counts_as_on_it(implementation):
    # Positions 3 + i * 49 / 49 would miss the pixels if i / 49 were rounded first.
    input = random_features(1, 2, 60, 60, dtype=torch.float32)
    boxes = torch.tensor([[0.0, 3, 5, 52, 54]])
    assert torch.equal(roi_warp(input, boxes, 49)[0], input[0, :, 5:54, 3:52])


def test_the_first_of_equal_samples_takes_the_gradient(implementation):
    input = torch.full((1, 1, 5, 5), 0.3, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 0, 4, 4]])
    roi_warp(input, boxes, 4, max_pool=2).sum().backward()
    expected = torch.zeros(1, 1, 5, 5)
    expected[0, 0, 0:4:2, 0:4:2] = 1
    assert torch.equal(input.grad, expected)


def test_flat_features_tie_between_pixels_too(implementation):
    input = torch.full((1, 1, 8, 8), 0.3, requires_grad=True)
    boxes = torch.tensor([[0.0, 1.1, 1.3, 5.7, 5.9]])
    pooled = roi_warp(input, boxes, 4, max_pool=2)
    assert torch.equal(pooled, torch.full_like(pooled, 0.3))


def test_nan_features_win_the_max_as_in_max_pool2d(implementation):
    input = random_features(1, 2, 6, 6, dtype=torch.float32)
    input[0, 0, 2, 2] = float("nan")
    boxes = torch.tensor([[0.0, 0.2, 0.2, 5.1, 5.1]])
    expected = F.max_pool2d(roi_warp(input, boxes, 6), 2)
    output = roi_warp(input, boxes, 6, max_pool=2)
    assert expected.isnan().any()
    torch.testing.assert_close(output, expected, equal_nan=True)


@pytest.mark.parametrize(
    "corners",
    [
        (-50.0, -50.0, -30.0, -20.0),
        (100.0, 0.0, 130.0, 5.0),
        (float("nan"), 1.0, 4.0, 5.0),
        (1.0, 1.0, 4.0, float("nan")),
        (1.0, float("-inf"), 4.0, 5.0),
        (float("inf"), 1.0, float("inf"), 5.0),
        (1e38, 1.0, -3e38, 5.0),
    ],
)
@pytest.mark.parametrize("max_pool", [1, 2])
def test_boxes_without_pixels_give_zero_and_no_gradient(implementation, corners, max_pool):
    input = random_features(1, 3, 6, 7, dtype=torch.float32).requires_grad_()
    boxes = torch.tensor([[0.0, *corners]], requires_grad=True)
    # The first sample lies at a finite corner, but in an infinite box.
    output = roi_warp(input, boxes, 4, max_pool=max_pool)
    output.sum().backward()
    for tensor in (output, input.grad, boxes.grad):
        assert torch.equal(tensor, torch.zeros_like(tensor))


def test_reversed_boxes_are_mirrored(implementation):
    input = random_features(1, 3, 9, 9)
    boxes = torch.tensor([[0.0, 1.2, 2.1, 7.3, 6.4]], dtype=torch.float64)
    mirrored = boxes[:, [0, 3, 4, 1, 2]]
    torch.testing.assert_close(
        roi_warp(input, mirrored, 6, aligned=True),
        roi_warp(input, boxes, 6, aligned=True).flip(2, 3),
    )
    torch.testing.assert_close(
        roi_warp(input, mirrored, (5, 7)), warp_by_loop(input, mirrored, (5, 7))
    )


def test_boxes_of_zero_size_sample_one_point(implementation):
    input = random_features(1, 3, 9, 9)
    boxes = torch.tensor([[0.0, 2.5, 4.0, 2.5, 4.0]], dtype=torch.float64)
    point = (input[0, :, 4, 2] + input[0, :, 4, 3]) / 2
    torch.testing.assert_close(
        roi_warp(input, boxes, 4, max_pool=2)[0], point[:, None, None].expand(3, 2, 2)
    )


@pytest.mark.parametrize("index", [-1.0, 2.0, 1e9, float("nan")])
def test_image_index_out_of_range_is_an_error(implementation, index):
    input = random_features(2, 3, 6, 6, dtype=torch.float32)
    boxes = torch.tensor([[0.0, 1, 1, 4, 4], [index, 1, 1, 4, 4]])
    with pytest.raises((IndexError, RuntimeError), match="image index"):
        roi_warp(input, boxes, 4)


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_number_of_boxes(implementation, count):
    input, boxes = random_features(2, 3, 8, 8), random_boxes(count, 2, 8, 8)
    output = roi_warp(input, boxes, 2)
    assert output.shape == (count, 3, 2, 2)
    torch.testing.assert_close(output, warp_by_grid_sample(input, boxes, (2, 2)))
    input_grad, boxes_grad = gradients(lambda i, b: roi_warp(i, b, 2, max_pool=2), input, boxes)
    assert input_grad.shape == input.shape and boxes_grad.shape == boxes.shape
    assert count or not input_grad.any()


def test_a_list_of_boxes_is_one_tensor_for_each_image(implementation):
    input = random_features(3, 4, 6, 6)
    boxes = random_boxes(5, 1, 6, 6)[:, 1:]
    lists = [boxes[:2], boxes[:0], boxes[2:]]
    index = torch.tensor([0.0, 0, 2, 2, 2], dtype=torch.float64)[:, None]
    assert torch.equal(roi_warp(input, lists, 4), roi_warp(input, torch.cat([index, boxes], 1), 4))


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed", "expanded"])
def test_strides_do_not_matter(implementation, layout):
    boxes = random_boxes(7, 2, 6, 6)
    input = {
        "channels_last": random_features(2, 5, 6, 6).to(memory_format=torch.channels_last),
        "sliced": random_features(4, 10, 9, 12)[1:3, ::2, 2:8, ::2],
        "transposed": random_features(2, 5, 6, 6).transpose(2, 3),
        "expanded": random_features(1, 1, 6, 6).expand(2, 5, 6, 6),
    }[layout]
    strided_boxes = torch.stack([boxes, boxes], dim=2)[:, :, 0]
    assert not input.is_contiguous() and not strided_boxes.is_contiguous()

    def function(input, boxes):
        return roi_warp(input, boxes, 4, max_pool=2).transpose(2, 3)  # and so has the gradient

    expected = input.contiguous()
    assert torch.equal(function(input, strided_boxes), function(expected, boxes))
    torch.testing.assert_close(
        gradients(function, input, strided_boxes), gradients(function, expected, boxes)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("max_pool", [1, 2])
def test_lower_precision_only_rounds(implementation, dtype, max_pool):
    input = random_features(2, 5, 10, 10, dtype=dtype)
    boxes = random_boxes(10, 2, 160, 160, dtype=torch.float32)

    def function(input, boxes):
        return roi_warp(input, boxes, 4, 1 / 16, max_pool)

    output = function(input, boxes)
    assert output.dtype == dtype
    exact = function(input.double(), boxes.double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), exact, rtol=eps, atol=2e-5)
    input_grad, boxes_grad = gradients(function, input, boxes)
    assert (input_grad.dtype, boxes_grad.dtype) == (dtype, torch.float32)
    if max_pool == 1:  # a near tie may be decided otherwise
        exact_grads = gradients(function, input.double(), boxes.double())
        # The incoming gradient, too, is rounded, and positions differ by up to 160 / 16 * 2^-23.
        close = {"rtol": eps, "atol": 8 * eps + 2e-5}
        torch.testing.assert_close(input_grad.double(), exact_grads[0], **close)
        torch.testing.assert_close(boxes_grad.double(), exact_grads[1], **close)


def test_autocast_keeps_coordinates_exact_and_the_type_of_the_features(implementation):
    boxes = torch.tensor([[0.0, 1001.25, 3.0, 1333.75, 400.0]])
    for dtype in (torch.float32, torch.bfloat16):
        input = random_features(1, 3, 30, 90, dtype=dtype)
        expected = roi_warp(input, boxes, 4, 1 / 16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = roi_warp(input, boxes, 4, 1 / 16)
        assert output.dtype == dtype
        assert torch.equal(output, expected)


def test_autocast_computes_half_boxes_in_float32(implementation):
    input = random_features(1, 3, 30, 30, dtype=torch.bfloat16)
    boxes = random_boxes(3, 1, 400, 400).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = roi_warp(input, boxes, 4, 1 / 16)
    assert torch.equal(output, roi_warp(input, boxes.float(), 4, 1 / 16))
    output.sum().backward()
    assert boxes.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("max_pool", [1, 2])
def test_module_is_the_function(implementation, max_pool):
    input, boxes = random_features(1, 3, 6, 6), random_boxes(3, 1, 6, 6)
    layer = ROIWarp((4, 6), 0.5, max_pool, aligned=True)
    assert torch.equal(layer(input, boxes), roi_warp(input, boxes, (4, 6), 0.5, max_pool, True))
    assert f"max_pool={max_pool}" in repr(layer)


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (ValueError, {"input": torch.zeros(3, 6, 6)}),
        (ValueError, {"boxes": torch.zeros(2, 4)}),
        (ValueError, {"boxes": [torch.zeros(2, 4)]}),
        (ValueError, {"boxes": [torch.zeros(2, 5), torch.zeros(2, 5)]}),
        (ValueError, {"output_size": 0}),
        (ValueError, {"output_size": 5, "max_pool": 2}),
        (ValueError, {"max_pool": 0}),
        (ValueError, {"output_size": 17, "max_pool": 17}),
        (TypeError, {"input": torch.zeros(2, 3, 6, 6, dtype=torch.int64)}),
        (TypeError, {"boxes": torch.zeros(2, 5, dtype=torch.int64)}),
        (TypeError, {"boxes": torch.zeros(2, 5, dtype=torch.float16)}),
        (ValueError, {"boxes": torch.zeros(2, 5, device="meta")}),
    ],
)
def test_wrong_arguments_are_named(implementation, error, change):
    arguments = {"input": torch.zeros(2, 3, 6, 6), "boxes": torch.zeros(2, 5), "output_size": 4}
    roi_warp(**arguments)
    with pytest.raises(error, match=list(change)[-1].split("_")[-1]):
        roi_warp(**{**arguments, **change})


def test_compiles_without_a_graph_break(implementation):
    input = random_features(2, 3, 8, 8, dtype=torch.float32)
    boxes = random_boxes(6, 2, 8, 8, dtype=torch.float32)

    def function(input, boxes):
        return roi_warp(input.relu(), boxes, 4, 0.9, 2) * 2

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with contextlib.ExitStack() as stack:
        if implementation == "compiled":
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("error")
        torch.testing.assert_close(compiled(input, boxes), function(input, boxes))
    torch.testing.assert_close(gradients(compiled, input, boxes), gradients(function, input, boxes))


def test_deterministic_algorithms_are_repeatable(implementation):
    input, boxes = (
        random_features(2, 65, 8, 8, dtype=torch.float32),
        random_boxes(200, 2, 8, 8, dtype=torch.float32),
    )
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            gradients(lambda i, b: roi_warp(i, b, 4, max_pool=2), input, boxes) for _ in "12"
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_operator
@pytest.mark.parametrize("max_pool", [1, 2])
def test_operator_passes_opcheck(max_pool):
    input = random_features(2, 3, 6, 6).requires_grad_()
    boxes = random_boxes(3, 2, 6, 6).requires_grad_()
    torch.library.opcheck(
        torch.ops.hybrid_cascade.roi_warp, (input, boxes, 4, 6, 0.9, max_pool, False, True)
    )
    argmax = torch.zeros(3, 3, 4 // max_pool, 6 // max_pool, dtype=torch.uint8)
    torch.library.opcheck(
        torch.ops.hybrid_cascade.roi_warp_backward,
        (
            torch.ones(argmax.shape, dtype=torch.float64),
            *(input.detach(), boxes.detach(), argmax, 4, 6, 0.9, max_pool, False, True, True),
        ),
    )


@needs_operator
def test_operator_itself_refuses_what_would_be_read_out_of_bounds():
    operators = torch.ops.hybrid_cascade
    input, boxes = torch.zeros(2, 3, 6, 6), torch.zeros(2, 5)
    with pytest.raises(RuntimeError, match="boxes must be"):
        operators.roi_warp(input, boxes[:, :4], 4, 4, 1.0, 1, False, False)
    argmax = torch.zeros(0, dtype=torch.uint8)
    settings = (4, 4, 1.0, 2, False, True, True)
    with pytest.raises(RuntimeError, match="indices of the maxima"):
        operators.roi_warp_backward(torch.zeros(2, 3, 2, 2), input, boxes, argmax, *settings)
    with pytest.raises(RuntimeError, match="grad does not fit"):
        operators.roi_warp_backward(torch.zeros(1, 3, 2, 2), input, boxes, argmax, *settings)


@needs_operator
def test_second_derivative_is_refused():
    input = random_features(1, 2, 6, 6).requires_grad_()
    boxes = random_boxes(2, 1, 6, 6).requires_grad_()
    (grad,) = torch.autograd.grad(roi_warp(input, boxes, 4).sum(), boxes, create_graph=True)
    with pytest.raises(NotImplementedError, match="once"):
        grad.sum().backward()


@needs_operator
def test_max_pool_does_not_store_the_samples():
    input, boxes = torch.zeros(1, 64, 8, 8), random_boxes(50, 1, 8, 8, dtype=torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        output = roi_warp(input, boxes, 28, max_pool=2)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    assert allocated < 1.5 * output.numel() * output.element_size()


def test_without_the_operator_one_warning_says_so(monkeypatch):
    monkeypatch.setattr(module, "compiled_devices", frozenset())
    module._warn_of_reference.cache_clear()
    input, boxes = torch.zeros(1, 1, 4, 4), torch.zeros(1, 5)
    with pytest.warns(UserWarning, match="plain PyTorch") as caught:
        roi_warp(input, boxes, 2)
        roi_warp(input, boxes, 2)
    assert len(caught) == 1
    module._warn_of_reference.cache_clear()


@pytest.mark.skipif(
    not (shutil.which("nvcc") and torch.version.cuda), reason="needs nvcc and a CUDA build of torch"
)
def test_where_nvcc_is_present_the_cuda_kernels_are_compiled():
    assert "cuda" in module.compiled_devices, module._compiled_reason


@needs_operator
def test_an_input_beyond_two_to_the_31_elements_is_indexed_right():
    # Memory that nobody touches is not taken from the system: two images, far apart.
    storage = torch.empty(2**31 + 2**12, dtype=torch.float16)
    input = storage.as_strided((2, 3, 10, 12), (2**31 + 7, 120, 12, 1))
    input.copy_(random_features(2, 3, 10, 12))
    boxes = random_boxes(5, 2, 10, 12, dtype=torch.float32)
    assert torch.equal(roi_warp(input, boxes, 4), roi_warp(input.contiguous(), boxes, 4))


@needs_operator
@pytest.mark.skipif("SLOW_TESTS" not in os.environ, reason="needs SLOW_TESTS=1 and 5 GB of memory")
def test_an_output_beyond_two_to_the_31_elements_is_indexed_right():
    input = random_features(1, 64, 6, 6, dtype=torch.float16)
    boxes = random_boxes(1, 1, 6, 6, dtype=torch.float32).expand(33000, 5).clone()
    boxes[-1] = torch.tensor([0.0, 1, 1, 5, 4])
    output = roi_warp(input, boxes, 32)
    assert output.numel() > 2**31
    assert torch.equal(output[-1:], roi_warp(input, boxes[-1:], 32))
    assert torch.equal(output[-2:-1], output[:1])
