import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import TimmBackbone

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "options", "features"),
    [
        ("resnet10t", {}, {"res1": 2, "res2": 4, "res3": 8, "res4": 16, "res5": 32}),
        ("convnext_atto", {}, {"res2": 4, "res3": 8, "res4": 16, "res5": 32}),
        ("convnext_atto", {"out_indices": [1, 2]}, {"res3": 8, "res4": 16}),
        # A model whose maps have their channels last.
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "img_size": 64},
            {"res2": 4, "res3": 8, "res4": 16, "res5": 32},
        ),
    ],
)
def test_features_have_the_names_and_strides_of_a_resnet(name, options, features):
    backbone = TimmBackbone(name, **options)
    shapes = backbone.output_shape()
    assert {feature: shape.stride for feature, shape in shapes.items()} == features
    maps = backbone(torch.rand(2, 3, 64, 64))
    assert list(maps) == list(features)
    for feature, shape in shapes.items():
        side = 64 // shape.stride
        assert maps[feature].shape == (2, shape.channels, side, side)


def test_layers_after_the_last_feature_are_not_built():
    few, all_ = TimmBackbone("resnet10t", out_indices=[2]), TimmBackbone("resnet10t")
    assert len(list(few.parameters())) < len(list(all_.parameters()))


@torch.no_grad()
def test_a_checkpoint_of_the_classifier_fills_all_layers(tmp_path):
    classifier = timm.create_model("resnet10t").eval()
    for p in classifier.parameters():
        nn.init.normal_(p, std=0.1)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = TimmBackbone("resnet10t", checkpoint_path=str(tmp_path / "weights.pth")).eval()
    image = torch.rand(1, 3, 64, 64)
    expected = classifier.forward_features(image)
    assert expected.std() > 0
    torch.testing.assert_close(backbone(image)["res5"], expected)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_frozen_norms_keep_their_statistics_in_training(name):
    for freeze_norm in (False, True):
        backbone = TimmBackbone(name, freeze_norm=freeze_norm).train()
        before = {n: b.clone() for n, b in backbone.named_buffers() if n.endswith("running_mean")}
        backbone(torch.rand(2, 3, 64, 64))
        after = dict(backbone.named_buffers())
        assert before and all(torch.equal(after[n], b) for n, b in before.items()) == freeze_norm


def test_the_error_for_an_unknown_name_lists_similar_names():
    with pytest.raises(ValueError, match="no model 'convnext_tinny'; near: .*convnext_tiny"):
        TimmBackbone("convnext_tinny")


def test_features_of_equal_strides_are_refused_unless_one_is_chosen():
    size = {"embed_dim": 12, "depth": 3, "num_heads": 1, "img_size": 64}
    with pytest.raises(ValueError, match=r"strides \[16, 16, 16\].*out_indices"):
        TimmBackbone("vit_tiny_patch16_224", **size)
    backbone = TimmBackbone("vit_tiny_patch16_224", out_indices=[-1], **size)
    assert backbone.output_shape() == {"res4": ShapeSpec(channels=12, stride=16)}
    assert backbone(torch.rand(1, 3, 64, 64))["res4"].shape == (1, 12, 4, 4)


def test_without_timm_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="'resnet10t' needs timm: pip install timm"):
        TimmBackbone("resnet10t")


def test_a_config_builds_it_under_an_fpn():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.TIMM.NAME = "resnet10t"
    cfg.MODEL.TIMM.FREEZE_NORM = True
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    backbone = build_backbone(cfg)
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(maps[f"p{level}"].shape) for level in range(2, 7)] == [
        (1, 8, -(-64 // 2**level), -(-96 // 2**level)) for level in range(2, 7)
    ]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_a_norm_for_each_feature_normalizes_its_channels():
    backbone = TimmBackbone("convnext_atto", out_norm="LN")
    assert list(backbone.out_norms) == ["res2", "res3", "res4", "res5"]
    for map_ in backbone(torch.rand(1, 3, 64, 64)).values():
        assert map_.mean(dim=1).abs().max() < 1e-4
        torch.testing.assert_close(
            map_.var(dim=1, unbiased=False), torch.ones_like(map_[:, 0]), atol=0.05, rtol=0
        )


def test_only_a_res2net_can_leave_out_the_pooling_of_its_first_block():
    size = {"layers": [1, 1, 1, 1], "channels": (8, 8, 8, 8)}
    pools = [
        TimmBackbone("res2net50d", pool_first_block=pool, **size).net.layer1[0].pool
        for pool in (True, False)
    ]
    assert isinstance(pools[0], nn.AvgPool2d) and pools[1] is None
    for name in ("resnet10t", "convnext_atto"):
        with pytest.raises(ValueError, match=f"for Res2Nets; {name} is none"):
            TimmBackbone(name, pool_first_block=False)


def test_a_yaml_config_has_the_norms_and_the_pooling_too():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.OUT_NORM = "convnext_atto", "LN"
    assert len(build_backbone(cfg).bottom_up.out_norms) == 4
    cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.OUT_NORM = "res2net50d", ""
    cfg.MODEL.TIMM.POOL_FIRST_BLOCK = False
    backbone = build_backbone(cfg)
    assert backbone.bottom_up.net.layer1[0].pool is None and not backbone.bottom_up.out_norms
