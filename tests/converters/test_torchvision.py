"""torchvision's classification weights as backbones; its SSD is in test_torchvision_ssd.py."""

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from torch import nn

from hybrid_cascade import model_zoo
from hybrid_cascade.converters import TORCHVISION_WEIGHTS, convert
from hybrid_cascade.modeling import VGG16, SeparateBackbones


@pytest.mark.parametrize(
    ("builder", "config"),
    [
        ("resnet50", "htc/htc_r50_fpn_1x.py"),
        ("resnext101_64x4d", "htc/htc_x101_64x4d_fpn_20e.py"),
        ("resnext101_64x4d", "htc/htc_x101_64x4d_fpn_dcn_20e.py"),
    ],
)
def test_torchvision_fills_the_backbones_of_our_configs(builder, config):
    with torch.device("meta"):
        weights = getattr(torchvision.models, builder)().state_dict()
        target = instantiate(model_zoo.get_config(config).model).state_dict()
    result = convert(TORCHVISION_WEIGHTS, weights, target)
    fresh = [n for n in result.fresh if ".bottom_up." in n and "conv2_offset" not in n]
    assert not fresh and "roi_heads.box_head.0.fc1.weight" in result.fresh
    assert {n for n in result.left if "num_batches" not in n} == {"fc.weight", "fc.bias"}


def test_a_shallower_resnet_does_not_fit():
    with torch.device("meta"):
        weights = torchvision.models.resnet50().state_dict()
        target = instantiate(model_zoo.get_config("htc/htc_r101_fpn_20e.py").model).state_dict()
    with pytest.raises(ValueError, match="get no value.*res4.6.conv1.weight"):
        convert(TORCHVISION_WEIGHTS, weights, target)


def test_vgg16_gets_the_names_of_its_layers():
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
    result = convert(TORCHVISION_WEIGHTS, weights)
    assert len(result.state_dict) == 26
    assert ("features.0.bias", "backbone.bottom_up.conv1_1.bias") in result.mapped
    assert ("features.28.weight", "backbone.bottom_up.conv5_3.weight") in result.mapped
    assert all(n.startswith("classifier.") for n in result.left)


def test_fully_connected_layers_of_vgg16_fill_both_pathways(two_pathways):
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
    result = convert(TORCHVISION_WEIGHTS, weights, two_pathways.state_dict())
    for head in ("masked_head", "box_head"):
        assert ("classifier.0.weight", f"roi_heads.{head}.fc1.weight") in result.mapped
        assert ("classifier.3.bias", f"roi_heads.{head}.fc2.bias") in result.mapped
    assert set(result.left) == {"classifier.6.weight", "classifier.6.bias"}
    assert all("narrow_head" in name for name in result.fresh) and len(result.fresh) == 4


def test_heads_of_other_sizes_start_fresh(two_pathways):
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
    target = two_pathways.state_dict()
    for name in [n for n in target if n.startswith("roi_heads.") and "narrow" not in n]:
        target[name] = target[name.replace("masked_", "narrow_").replace("box_", "narrow_")]
    result = convert(TORCHVISION_WEIGHTS, weights, target)
    assert "roi_heads.box_head.fc1.weight" in result.fresh
    assert "no RoI head of this model has" in result.left["classifier.0.weight"]
    assert result.left["classifier.6.bias"] == "the classification layers"


def test_each_of_separate_backbones_is_filled():
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
        backbones = SeparateBackbones(**{"proposals": VGG16(), "mask": VGG16()})
    target = nn.ModuleDict({"backbone": backbones}).state_dict()
    result = convert(TORCHVISION_WEIGHTS, weights, target)
    assert set(result.state_dict) == set(target)


@pytest.mark.parametrize(("builder", "reason"), [("vgg16_bn", "batch norm"), ("vgg19", "16 conv")])
def test_other_vggs_are_refused(builder, reason):
    with torch.device("meta"):
        weights = getattr(torchvision.models, builder)().state_dict()
    with pytest.raises(ValueError, match=reason):
        convert(TORCHVISION_WEIGHTS, weights)
