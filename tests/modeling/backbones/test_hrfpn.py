import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone
from torch.nn import functional as F

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import HRFPN


class Maps(Backbone):
    """Maps that follow from the image: its channels, resized."""

    def __init__(self, strides):
        super().__init__()
        self.strides = strides

    def output_shape(self):
        return {f"res{i}": ShapeSpec(channels=3, stride=s) for i, s in enumerate(self.strides)}

    def forward(self, x):
        return {f"res{i}": F.avg_pool2d(x, stride) for i, stride in enumerate(self.strides)}


def test_levels_are_named_by_their_strides_and_halve_in_size():
    backbone = HRFPN(Maps([8, 16]), ["res0", "res1"], out_channels=5, num_levels=3)
    maps = backbone(torch.rand(2, 3, 64, 96))
    assert {name: tuple(map_.shape) for name, map_ in maps.items()} == {
        "p3": (2, 5, 8, 12),
        "p4": (2, 5, 4, 6),
        "p5": (2, 5, 2, 3),
    }
    shapes = backbone.output_shape()
    assert [shape.stride for shape in shapes.values()] == [8, 16, 32]
    assert all(shape.channels == 5 for shape in shapes.values())
    assert backbone.size_divisibility == 16


@torch.no_grad()
def test_every_map_reaches_every_level():
    backbone = HRFPN(Maps([4, 8, 16]), ["res0", "res1", "res2"], out_channels=2, num_levels=2)
    image = torch.rand(1, 3, 32, 32)
    before = backbone(image)
    for channel in range(9):  # three of each map
        weight = backbone.reduction_conv.weight
        kept = weight[:, channel].clone()
        weight[:, channel] += 1
        after = backbone(image)
        assert all((after[name] - before[name]).abs().max() > 1e-3 for name in before)
        weight[:, channel] = kept


def test_maps_whose_strides_do_not_double_are_refused():
    with pytest.raises(ValueError, match=r"strides of \['res0', 'res1'\] are \[4, 16\]"):
        HRFPN(Maps([4, 16]), ["res0", "res1"])


def test_a_config_builds_it_on_an_hrnet_of_timm():
    pytest.importorskip("timm")
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_timm_hrfpn_backbone"
    cfg.MODEL.TIMM.NAME = "hrnet_w18_small"
    cfg.MODEL.TIMM.FREEZE_NORM = True
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    shapes = build_backbone(cfg).output_shape()
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == {
        f"p{level}": (8, 2**level) for level in range(2, 7)
    }
