"""RoI warp on CPUs: which pixels it reads, in which order, and how it copies them."""

import pytest
import torch
from torch.nn import functional as F

from hybrid_cascade.layers import roi_warp
from hybrid_cascade.layers.extension import compiled_devices, compiled_reason

from .roi_warp_cases import gradients, random_boxes, random_features, warp_by_grid_sample

pytestmark = pytest.mark.skipif(not compiled_devices, reason=compiled_reason)


def low_boxes(count, images, height, width, dtype=torch.float64):
    """Return boxes all over maps of this size, each of a few rows, in any order."""
    boxes = random_boxes(count, images, height, width, dtype=dtype)
    center = (boxes[:, 2] + boxes[:, 4]) / 2
    extent = torch.rand(count, generator=torch.Generator().manual_seed(2)) * 12
    boxes[:, 2], boxes[:, 4] = center - extent / 2, center + extent / 2
    return boxes


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [64, 77])  # a whole block, and one with parts of tiles
@pytest.mark.parametrize("max_pool", [1, 2])
def test_boxes_all_over_tall_maps(layout, channels, max_pool):
    input = random_features(2, channels, 90, 13).contiguous(memory_format=layout)
    boxes = low_boxes(40, 2, 90, 13)

    def expected(input, boxes):
        return F.max_pool2d(warp_by_grid_sample(input, boxes, (6, 10)), max_pool)

    def ours(input, boxes):
        return roi_warp(input, boxes, (6, 10), max_pool=max_pool)

    torch.testing.assert_close(ours(input, boxes), expected(input, boxes))
    torch.testing.assert_close(gradients(ours, input, boxes), gradients(expected, input, boxes))


def test_many_channels_in_single_precision():
    input, boxes = random_features(1, 77, 30, 13), low_boxes(9, 1, 30, 13)

    def warp(input, boxes):
        return roi_warp(input, boxes, (6, 10))

    single = input.float(), boxes.float()
    torch.testing.assert_close(warp(*single), warp(input, boxes).float(), rtol=1e-4, atol=1e-4)
    expected = [grad.float() for grad in gradients(warp, input, boxes)]
    torch.testing.assert_close(list(gradients(warp, *single)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("max_pool", [1, 2])
def test_many_half_channels_only_round(dtype, max_pool):
    input, boxes = random_features(1, 77, 30, 13, dtype=dtype), low_boxes(9, 1, 30, 13)

    def warp(input, boxes):
        return roi_warp(input, boxes.float(), (6, 10), max_pool=max_pool)

    assert torch.equal(warp(input, boxes), warp(input.float(), boxes).to(dtype))
    (leaf, wide), grads = (input.clone(), input.float()), []
    for features in (leaf, wide):
        output = warp(features.requires_grad_(), boxes)
        grad = random_features(*output.shape, dtype=dtype, seed=1).to(output.dtype)
        grads += torch.autograd.grad(output, features, grad)
    assert torch.equal(grads[0], grads[1].to(dtype))


def test_pixels_that_no_box_reads_do_not_matter():
    input = random_features(2, 3, 40, 30)
    boxes = torch.tensor([[0.0, 4, 20, 9, 24], [0, 20, 2, 25, 5], [0, 22, 30, 26, 33]]).double()
    boxes[:, 1:] += 0.3  # no sample on a pixel, which would read the next one with the weight 0
    expected = gradients(lambda i, b: roi_warp(i, b, 4), input, boxes)
    is_read = expected[0].abs().sum(dim=1, keepdim=True) > 0
    assert is_read[0].any() and not is_read[1].any()
    broken = torch.where(is_read, input, torch.nan)
    assert torch.equal(roi_warp(broken, boxes, 4), roi_warp(input, boxes, 4))
    torch.testing.assert_close(gradients(lambda i, b: roi_warp(i, b, 4), broken, boxes), expected)


@pytest.mark.parametrize("channels", [3, 130])
def test_the_number_of_threads_changes_no_bit(channels):
    input = random_features(2, channels, 50, 20, dtype=torch.float32)
    boxes = low_boxes(100, 2, 50, 20, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 7):
            torch.set_num_threads(number)
            grads = gradients(lambda i, b: roi_warp(i, b, 4, max_pool=2), input, boxes)
            results.append((roi_warp(input, boxes, 4, max_pool=2), *grads))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, seven) for one, seven in zip(*results, strict=True))
