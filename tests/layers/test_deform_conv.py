import pytest
import torch
from detectron2.modeling.backbone import BasicStem, BottleneckBlock, ResNet
from torch.nn import functional as F

from hybrid_cascade.layers.deform_conv import (
    DeformBottleneckBlock,
    DeformConv,
    ModulatedDeformConv,
)


def zero_offsets(conv, height, width):
    return torch.zeros(2, 2 * conv.deformable_groups * 9, height, width)


def test_without_offsets_it_is_a_convolution_with_groups_stride_and_dilation():
    conv = DeformConv(8, 12, 3, stride=2, padding=2, dilation=2, groups=4, deformable_groups=2)
    x = torch.randn(2, 8, 11, 13)
    expected = F.conv2d(x, conv.weight, stride=2, padding=2, dilation=2, groups=4)
    torch.testing.assert_close(conv(x, zero_offsets(conv, *expected.shape[-2:])), expected)


def test_offsets_are_pixels_in_the_order_y_x():
    conv = DeformConv(3, 3, 1)
    x = torch.randn(1, 3, 9, 9)
    offset = torch.zeros(1, 2, 9, 9)
    offset[:, 0], offset[:, 1] = 2, -1  # two rows down, one column to the left
    moved = torch.zeros_like(x)
    moved[:, :, :-2, 1:] = x[:, :, 2:, :-1]
    torch.testing.assert_close(conv(x, offset), F.conv2d(moved, conv.weight))


def test_the_mask_weighs_the_points_of_the_kernel():
    conv = ModulatedDeformConv(4, 6, 3, padding=1)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 4, 7, 5)
    mask = torch.zeros(2, 9, 7, 5)
    mask[:, 4] = 0.5  # the middle
    expected = F.conv2d(x, 0.5 * conv.weight[:, :, 1:2, 1:2], conv.bias)
    torch.testing.assert_close(conv(x, zero_offsets(conv, 7, 5), mask), expected)


def test_norm_and_activation_follow_the_convolution():
    norm = torch.nn.BatchNorm2d(4)
    conv = DeformConv(4, 4, 3, padding=1, norm=norm, activation=F.relu)
    x = torch.randn(2, 4, 6, 6)
    expected = F.relu(norm(F.conv2d(x, conv.weight, padding=1)))
    torch.testing.assert_close(conv(x, zero_offsets(conv, 6, 6)), expected)


def test_an_empty_batch_gives_an_empty_result():
    conv = DeformConv(4, 6, 3, stride=2, padding=1)
    assert conv(torch.zeros(0, 4, 8, 8), torch.zeros(0, 18, 4, 4)).shape == (0, 6, 4, 4)


@pytest.mark.parametrize("bad", [{"groups": 3}, {"deformable_groups": 3}, {"bias": True}])
def test_arguments_that_do_not_fit_are_refused(bad):
    with pytest.raises(ValueError):
        DeformConv(8, 8, 3, **bad)


@pytest.mark.parametrize(
    "name, value",
    [("stride", 0), ("dilation", -1), ("padding", -1), ("kernel_size", 0)]
    + [("groups", 0), ("deformable_groups", 0), ("stride", 1.5)],
)
def test_numbers_that_no_convolution_has_are_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        DeformConv(8, 8, **{"kernel_size": 3, name: value})


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("x", lambda x: x[:, :3], r"x must be \(N, 4, h, w\), got \(2, 3, 7, 5\)"),
        ("x", lambda x: x[0], "x must be"),
        ("x", lambda x: x[:, :, :2, :2], "smaller than the kernel"),
        ("x", lambda x: x.double(), "x is torch.float64, but the weight is torch.float32"),
        ("x", lambda x: x.to_sparse(), "x must be dense"),
        ("x", lambda x: x.to("meta"), "x is on meta, offset is on cpu"),
        ("offset", lambda x: x[:, :4], r"offset must be \(2, 18, 5, 3\), got \(2, 4, 5, 3\)"),
        ("offset", lambda x: x[:1], "offset must be"),
        ("mask", lambda x: x[:, :, 1:], r"mask must be \(2, 9, 5, 3\)"),
        ("mask", lambda x: x.half(), "mask is torch.float16"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(name, change, message):
    conv = ModulatedDeformConv(4, 6, 3)
    arguments = {"x": torch.randn(2, 4, 7, 5), "offset": torch.zeros(2, 18, 5, 3)}
    arguments["mask"] = torch.zeros(2, 9, 5, 3)
    conv(**arguments)
    with pytest.raises((ValueError, TypeError), match=message):
        conv(**{**arguments, name: change(arguments[name])})


def test_offsets_that_are_no_numbers_read_zero():
    conv = DeformConv(3, 3, 1)
    offset = torch.zeros(1, 2, 9, 9)
    offset[:, 1, 0], offset[:, 0, 1], offset[:, 1, 2] = torch.nan, torch.inf, -torch.inf
    result = conv(torch.randn(1, 3, 9, 9), offset.requires_grad_())
    assert (result[:, :, :3] == 0).all() and (result[:, :, 3:] != 0).all()
    result.sum().backward()
    assert conv.weight.grad.isfinite().all() and offset.grad.isfinite().all()


@pytest.mark.parametrize("modulated", [False, True])
def test_a_new_block_computes_what_the_ordinary_one_does_and_learns_its_offsets(modulated):
    args = {"bottleneck_channels": 8, "stride": 2, "num_groups": 2, "norm": "FrozenBN"}
    ordinary = BottleneckBlock(6, 16, **args)
    block = DeformBottleneckBlock(6, 16, **args, deform_modulated=modulated, deform_num_groups=2)
    missing, unexpected = block.load_state_dict(ordinary.state_dict(), strict=False)
    assert set(missing) == {"conv2_offset.weight", "conv2_offset.bias"} and not unexpected
    if modulated:  # masks start as sigmoid(0)
        block.conv2.weight.data *= 2
    x = torch.randn(1, 6, 10, 12)
    torch.testing.assert_close(block(x), ordinary(x))
    torch.nn.init.normal_(block.conv2_offset.bias)
    assert not torch.allclose(block(x), ordinary(x))
    block(x).square().sum().backward()
    assert block.conv2_offset.weight.grad.abs().sum() > 0


def test_the_block_builds_a_resnet_of_detectron2():
    stage = ResNet.make_stage(
        DeformBottleneckBlock,
        2,
        stride_per_block=[2, 1],
        in_channels=8,
        out_channels=16,
        bottleneck_channels=8,
    )
    model = ResNet(BasicStem(out_channels=8), [stage], out_features=["res2"])
    assert model(torch.randn(1, 3, 64, 64))["res2"].shape == (1, 16, 8, 8)
