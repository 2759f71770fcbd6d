"""The products that a graph of ONNX records against PyTorch's own functions."""

import pytest
import torch
from torch.nn import functional as F

from hybrid_cascade.layers.resizing import adaptive_average, resize_bilinear

SIZES = [((12, 16), (6, 8)), ((12, 16), (24, 32)), ((12, 9), (5, 7)), ((3, 5), (3, 5))]


@pytest.fixture(params=[False, True], ids=["eager", "in an export"])
def in_export(request, monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: request.param)


@pytest.mark.parametrize("input_size, output_size", [*SIZES, ((1, 1), (4, 2)), ((7, 9), (1, 1))])
def test_adaptive_average_is_pytorchs(in_export, input_size, output_size):
    x = torch.randn(2, 3, *input_size)
    expected = F.adaptive_avg_pool2d(x, output_size)
    torch.testing.assert_close(adaptive_average(x, output_size), expected)


@pytest.mark.parametrize("input_size, output_size", [*SIZES, ((1000, 1333), (300, 300))])
def test_resize_bilinear_is_pytorchs(in_export, input_size, output_size):
    x = torch.randint(0, 256, (1, 3, *input_size)).float()
    expected = F.interpolate(x, output_size, mode="bilinear")
    torch.testing.assert_close(resize_bilinear(x, output_size), expected, atol=1e-4, rtol=0)
