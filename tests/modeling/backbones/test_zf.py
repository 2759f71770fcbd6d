import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from hybrid_cascade.modeling import ZF
from hybrid_cascade.modeling.backbones.zf import normalize_within_channel


@pytest.fixture(scope="module")
def zf():
    return ZF()


@torch.no_grad()
@pytest.mark.parametrize("size", [(97, 131), (70, 71), (6, 7), (600, 16)])
def test_the_map_has_256_channels_and_stride_16_rounded_as_in_caffe(zf, size):
    assert zf.output_shape() == {"conv5": ShapeSpec(channels=256, stride=16)}
    cells = [math.ceil((side - 6) / 16) + 1 for side in size]
    assert zf(torch.rand(2, 3, *size))["conv5"].shape == (2, 256, *cells)


@torch.no_grad()
def test_parameters_have_the_names_and_sizes_of_caffe(zf):
    shapes = {n: tuple(p.shape) for n, p in zf.named_parameters() if n.endswith("weight")}
    assert shapes == {
        "conv1.weight": (96, 3, 7, 7),
        "conv2.weight": (256, 96, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 384, 3, 3),
        "conv5.weight": (256, 384, 3, 3),
    }


def test_normalization_divides_by_the_mean_square_of_the_neighbours_in_the_channel():
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64) * 100
    actual = normalize_within_channel(x)
    for channel in range(2):
        for i in range(4):
            for j in range(5):
                window = x[0, channel, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
                # Nine pixels everywhere: those outside the map are zeros.
                scale = 1 + 0.00005 * (window**2).sum() / 9
                expected = x[0, channel, i, j] / scale**0.75
                torch.testing.assert_close(actual[0, channel, i, j], expected, rtol=1e-5, atol=0)


def test_normalization_of_large_activations_in_half_precision_is_finite():
    x = torch.full((1, 1, 3, 3), 1000.0)
    half = normalize_within_channel(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), normalize_within_channel(x), rtol=2e-3, atol=0)


@torch.no_grad()
def test_the_first_two_convolutions_are_normalized(zf, monkeypatch):
    image = torch.rand(1, 3, 64, 64) * 255
    seen = []

    def spy(x):
        seen.append(x.shape[1])
        return x

    before = zf(image)["conv5"]
    monkeypatch.setattr("hybrid_cascade.modeling.backbones.zf.normalize_within_channel", spy)
    after = zf(image)["conv5"]
    assert seen == [96, 256] and (before - after).abs().max() > 1e-3 * after.abs().max()


@pytest.mark.parametrize("freeze_at", [0, 2])
def test_freeze_at_counts_convolutions(freeze_at):
    trained = {n[:5] for n, p in ZF(freeze_at=freeze_at).named_parameters() if p.requires_grad}
    assert trained == {f"conv{i}" for i in range(freeze_at + 1, 6)}


def test_a_config_builds_it():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_zf_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 1
    with torch.device("meta"):
        backbone = build_backbone(cfg)
    assert not backbone.conv1.weight.requires_grad and backbone.conv2.weight.requires_grad


def test_a_wrong_freeze_at_is_refused():
    with pytest.raises(ValueError, match="freeze_at=6"), torch.device("meta"):
        ZF(freeze_at=6)
