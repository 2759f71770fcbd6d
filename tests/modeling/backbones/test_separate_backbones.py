import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from hybrid_cascade.modeling import SeparateBackbones


class OneConv(Backbone):
    def __init__(self, divisibility=0, constraints=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self._out_features = ["conv"]
        self._out_feature_channels, self._out_feature_strides = {"conv": 4}, {"conv": 2}
        self._divisibility, self._constraints = divisibility, constraints or {}

    size_divisibility = property(lambda self: self._divisibility)
    padding_constraints = property(lambda self: self._constraints)

    def forward(self, x):
        return {"conv": self.conv(x)}


def test_each_backbone_sees_the_image_and_has_its_own_features():
    first, second = OneConv(), OneConv()
    both = SeparateBackbones(**{"proposals": first, "mask": second})
    image = torch.rand(2, 3, 33, 47)
    features = both(image)
    assert list(features) == list(both.output_shape()) == ["proposals.conv", "mask.conv"]
    torch.testing.assert_close(features["proposals.conv"], first(image)["conv"])
    torch.testing.assert_close(features["mask.conv"], second(image)["conv"])
    assert not torch.equal(features["mask.conv"], features["proposals.conv"])
    assert all(s == ShapeSpec(channels=4, stride=2) for s in both.output_shape().values())


def test_no_parameters_are_shared_and_their_names_tell_the_backbone():
    both = SeparateBackbones(**{"proposals": OneConv(), "mask": OneConv()})
    assert {n for n, _ in both.named_parameters()} == {
        f"backbones.{name}.conv.{what}"
        for name in ("proposals", "mask")
        for what in ("weight", "bias")
    }
    both(torch.rand(1, 3, 8, 8))["mask.conv"].sum().backward()
    assert both.backbones["mask"].conv.weight.grad is not None
    assert both.backbones["proposals"].conv.weight.grad is None


@pytest.mark.parametrize(
    ("backbones", "divisibility", "square"),
    [
        ([(0, {}), (0, {})], 1, None),
        ([(16, {}), (24, {})], 48, None),
        ([(0, {}), (32, {"square_size": 1024})], 32, 1024),
        ([(7, {"size_divisibility": 4}), (6, {"square_size": 0})], 12, None),
    ],
)
def test_the_image_is_padded_as_all_backbones_need_it(backbones, divisibility, square):
    both = SeparateBackbones(**{f"net{i}": OneConv(*b) for i, b in enumerate(backbones)})
    assert both.size_divisibility == divisibility
    assert both.padding_constraints["size_divisibility"] == divisibility
    assert both.padding_constraints.get("square_size") == square


def test_squares_of_different_sizes_are_refused():
    backbones = {f"net{size}": OneConv(0, {"square_size": size}) for size in (512, 1024)}
    with pytest.raises(ValueError, match="different sizes.*1024"):
        SeparateBackbones(**backbones)


@pytest.mark.parametrize("names", [[], ["mask.first"], [""]])
def test_names_that_cannot_name_features_are_refused(names):
    with pytest.raises(ValueError, match="needs names"):
        SeparateBackbones(**{name: OneConv() for name in names})
