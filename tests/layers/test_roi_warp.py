"""RoI warp: its values and gradients."""

import pytest
import torch
from torch.nn import functional as F

from hybrid_cascade.layers import ROIWarp, roi_warp

from .roi_warp_cases import (
    gradients,
    random_boxes,
    random_features,
    warp_by_grid_sample,
    warp_by_loop,
)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4, 130])
def test_value_is_the_equation(implementation, aligned, channels):
    input = random_features(2, channels, 7, 9)
    boxes = random_boxes(6, 2, 7 * 4, 9 * 4)
    output = roi_warp(input, boxes, (4, 6), 0.25, aligned=aligned)
    assert output.is_contiguous()
    torch.testing.assert_close(output, warp_by_loop(input, boxes, (4, 6), 0.25, aligned))


@pytest.mark.parametrize("channels", [1, 8, 66])
@pytest.mark.parametrize("max_pool", [1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
def test_value_and_gradients_are_those_of_grid_sample_and_max_pool(
    implementation, aligned, max_pool, channels
):
    input, boxes = random_features(3, channels, 11, 8), random_boxes(20, 3, 11 * 16, 8 * 16)

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


@pytest.mark.parametrize("max_pool", [1, 2, 3])
@pytest.mark.parametrize(
    "corners", [(-50.0, 1.0, -30.0, 4.0), (-20.0, 1.0, 6.0, 4.0), (1.0, -20.0, 4.0, 6.0)]
)
def test_infinite_gradients_of_samples_outside_go_nowhere(kernels, corners, max_pool):
    input = torch.rand(1, 3, 6, 7).add(1).requires_grad_()
    boxes = torch.tensor([[0.0, *corners]], requires_grad=True)
    output = roi_warp(input, boxes, 12, max_pool=max_pool)
    output.backward(torch.zeros_like(output).masked_fill(output == 0, float("inf")))
    for gradient in (input.grad, boxes.grad):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)])
@pytest.mark.parametrize("max_pool", [1, 2, 3])
def test_maps_of_few_pixels(implementation, size, max_pool):
    input, boxes = random_features(2, 5, *size), random_boxes(20, 2, 6, 6)

    def expected(input, boxes):
        return F.max_pool2d(warp_by_grid_sample(input, boxes, (6, 12)), max_pool)

    def ours(input, boxes):
        return roi_warp(input, boxes, (6, 12), max_pool=max_pool)

    torch.testing.assert_close(ours(input, boxes), expected(input, boxes))
    torch.testing.assert_close(gradients(ours, input, boxes), gradients(expected, input, boxes))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_maps_without_pixels_are_zero(implementation, size):
    input, boxes = random_features(1, 8, *size), random_boxes(4, 1, 2, 2)

    def warp(input, boxes):
        return roi_warp(input, boxes, 4, max_pool=2)

    for result in (warp(input, boxes), *gradients(warp, input, boxes)):
        assert torch.equal(result, torch.zeros_like(result))


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


def test_long_rows_of_the_largest_windows(implementation):
    input, boxes = random_features(1, 2, 6, 9), random_boxes(2, 1, 9, 6)

    def expected(input, boxes):
        return F.max_pool2d(warp_by_grid_sample(input, boxes, (16, 3840)), 16)

    def ours(input, boxes):
        return roi_warp(input, boxes, (16, 3840), max_pool=16)

    torch.testing.assert_close(ours(input, boxes), expected(input, boxes))
    torch.testing.assert_close(gradients(ours, input, boxes), gradients(expected, input, boxes))
    single = ours(input.float(), boxes.float())
    torch.testing.assert_close(single, expected(input, boxes).float(), rtol=1e-4, atol=1e-3)


# 300 channels are three groups of channels, 15 x 19 cells many tiles: more than the emulation has
# blocks for.
@pytest.mark.parametrize("channels, max_pool", [(33, 1), (33, 2), (300, 2), (5, 3)])
def test_deterministic_gradients_of_many_cells(implementation, channels, max_pool):
    input, boxes = random_features(2, channels, 6, 9), random_boxes(3, 2, 9, 6)

    def warp(input, boxes):
        return roi_warp(input, boxes, (30, 39 - 39 % max_pool), max_pool=max_pool)

    expected = gradients(warp, input, boxes)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (gradients(warp, input, boxes) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(first, expected)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gradients_of_features_alone_with_many_cells(implementation):
    input, boxes = random_features(1, 3, 6, 9), random_boxes(3, 1, 9, 6)
    expected, _ = gradients(lambda i, b: warp_by_grid_sample(i, b, (40, 50)), input, boxes)
    leaf = input.clone().requires_grad_()
    output = roi_warp(leaf, boxes, (40, 50))
    output.backward(random_features(*output.shape, seed=1))
    torch.testing.assert_close(leaf.grad, expected)


def test_features_without_channels(implementation):
    input, boxes = torch.zeros(1, 0, 6, 7), random_boxes(3, 1, 7, 6, dtype=torch.float32)
    assert roi_warp(input, boxes, 4, max_pool=2).shape == (3, 0, 2, 2)
    input_grad, boxes_grad = gradients(lambda i, b: roi_warp(i, b, 4), input, boxes)
    assert input_grad.shape == input.shape and torch.equal(boxes_grad, torch.zeros(3, 5))
    with pytest.raises((IndexError, RuntimeError), match="index"):
        roi_warp(input, torch.tensor([[1.0, 0, 0, 2, 2]]), 4)


@pytest.mark.parametrize("max_pool", [1, 2])
def test_module_is_the_function(implementation, max_pool):
    input, boxes = random_features(1, 3, 6, 6), random_boxes(3, 1, 6, 6)
    layer = ROIWarp((4, 6), 0.5, max_pool, aligned=True)
    assert torch.equal(layer(input, boxes), roi_warp(input, boxes, (4, 6), 0.5, max_pool, True))
    assert f"max_pool={max_pool}" in repr(layer)
