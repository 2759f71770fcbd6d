"""RoI warp: shapes, layouts and types of inputs that it takes, and inputs that it refuses."""

import os

import pytest
import torch

from hybrid_cascade.layers import roi_warp
from hybrid_cascade.layers.extension import compiled_devices, compiled_reason

from .roi_warp_cases import gradients, random_boxes, random_features, warp_by_grid_sample

needs_operator = pytest.mark.skipif(not compiled_devices, reason=compiled_reason)


@pytest.mark.parametrize("index", [-1.0, 2.0, 1e9, float("nan")])
def test_image_index_out_of_range_is_an_error(implementation, index):
    input = random_features(2, 3, 6, 6, dtype=torch.float32)
    boxes = torch.tensor([[0.0, 1, 1, 4, 4], [index, 1, 1, 4, 4]])
    with pytest.raises((IndexError, RuntimeError), match="image index"):
        roi_warp(input, boxes, 4)


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_number_of_boxes(implementation, count):
    count = min(count, 300) if implementation == "emulated_cuda" else count  # each is a block
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


@pytest.mark.parametrize(
    "layout", ["channels_last", "sliced", "transposed", "expanded", "unaligned"]
)
def test_strides_do_not_matter(implementation, layout):
    boxes = random_boxes(7, 2, 6, 6)
    input = {
        "channels_last": random_features(2, 5, 6, 6).to(memory_format=torch.channels_last),
        "sliced": random_features(4, 10, 9, 12)[1:3, ::2, 2:8, ::2],
        "transposed": random_features(2, 5, 6, 6).transpose(2, 3),
        "expanded": random_features(1, 1, 6, 6).expand(2, 5, 6, 6),
        # Channels last, one number after the place where 16 bytes may be read at once.
        "unaligned": random_features(577)[1:].view(2, 6, 6, 8).permute(0, 3, 1, 2),
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
@pytest.mark.parametrize("max_pool", [1, 2, 3])
@pytest.mark.parametrize("channels", [5, 8])
def test_lower_precision_only_rounds(implementation, dtype, max_pool, channels):
    input = random_features(2, channels, 10, 10, dtype=dtype)
    boxes = random_boxes(10, 2, 160, 160, dtype=torch.float32)

    def function(input, boxes):
        return roi_warp(input, boxes, 2 * max_pool, 1 / 16, max_pool)

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", [5, 8])
def test_on_emulated_cuda_the_gradient_of_channels_last_features_is_channels_last(
    emulated_cuda_kernels, dtype, channels
):
    input = random_features(2, channels, 6, 7, dtype=dtype)
    boxes = random_boxes(7, 2, 6, 6, dtype=torch.float32)

    def function(input, boxes):
        return roi_warp(input, boxes, 4, max_pool=2)

    expected, _ = gradients(function, input, boxes)
    actual, _ = gradients(function, input.to(memory_format=torch.channels_last), boxes)
    assert expected.is_contiguous()
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected)


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
        (TypeError, {"boxes": torch.zeros(2, 5).to_sparse()}),
        (TypeError, {"input": torch.zeros(2, 3, 6, 6).to_sparse()}),
        (TypeError, {"input": torch.zeros(2, 3, 6, 6).to(torch.float8_e5m2)}),
        (ValueError, {"output_size": 2**31}),
        (ValueError, {"output_size": (4, 4097)}),
        (TypeError, {"output_size": (4.0, 4)}),
        (TypeError, {"output_size": "4"}),
        (ValueError, {"spatial_scale": float("nan")}),
        (ValueError, {"spatial_scale": 0.0}),
        (TypeError, {"spatial_scale": "1"}),
        (TypeError, {"max_pool": 2.0}),
    ],
)
def test_wrong_arguments_are_named(implementation, error, change):
    arguments = {"input": torch.zeros(2, 3, 6, 6), "boxes": torch.zeros(2, 5), "output_size": 4}
    roi_warp(**arguments)
    with pytest.raises(error, match=list(change)[-1].split("_")[-1]):
        roi_warp(**{**arguments, **change})


@needs_operator
@pytest.mark.parametrize(
    "index, value, message",
    [
        (0, torch.zeros(2, 3, 6, 6).to(torch.float8_e5m2), "float16, .* got Float8_e5m2"),
        (1, torch.zeros(2, 5, device="meta"), "boxes is on meta"),
        (2, 2**31, "output_size .* at most 4096, got 2147483648"),
        (4, float("inf"), "spatial_scale must be positive and finite, got inf"),
    ],
)
def test_the_operator_checks_its_limits_itself(index, value, message):
    arguments = [torch.zeros(2, 3, 6, 6), torch.zeros(2, 5), 4, 4, 1.0, 1, False, False]
    torch.ops.hybrid_cascade.roi_warp(*arguments)
    arguments[index] = value
    with pytest.raises((RuntimeError, ValueError), match=message):
        torch.ops.hybrid_cascade.roi_warp(*arguments)


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
