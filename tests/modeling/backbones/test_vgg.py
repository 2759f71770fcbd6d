import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.converters import TORCHVISION_WEIGHTS, convert
from hybrid_cascade.modeling import VGG16

CHANNELS = (2, 3, 4, 5, 6)


@pytest.mark.parametrize("size", [(97, 131), (64, 96), (1, 17)])
def test_features_have_the_declared_shapes_rounded_up(size):
    backbone = VGG16(channels=CHANNELS, out_features=["conv3_3", "conv4_3", "conv5_3", "conv1_1"])
    features = backbone(torch.rand(2, 3, *size))
    shapes = backbone.output_shape()
    assert list(features) == list(shapes) == ["conv3_3", "conv4_3", "conv5_3", "conv1_1"]
    assert [s.stride for s in shapes.values()] == [4, 8, 16, 1]
    for name, shape in shapes.items():
        expected = (2, shape.channels, *(-(-side // shape.stride) for side in size))
        assert features[name].shape == expected


@pytest.mark.parametrize(("size", "ceil_mode"), [((64, 96), False), ((75, 91), True)])
@torch.no_grad()
def test_with_converted_weights_it_computes_what_torchvision_computes(size, ceil_mode):
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None).features
    theirs.to_empty(device="cpu")
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.1 if p.dim() == 1 else (2 / p[0].numel()) ** 0.5)
    for pool in theirs:
        if isinstance(pool, nn.MaxPool2d):
            pool.ceil_mode = ceil_mode
    ours = nn.Module()
    ours.backbone = VGG16(out_features=["conv3_3", "conv4_3", "conv5_3"])
    weights = {f"features.{name}": p for name, p in theirs.state_dict().items()}
    result = convert(TORCHVISION_WEIGHTS, weights, ours.state_dict())
    assert not result.fresh and not result.left
    ours.load_state_dict(result.state_dict)
    image = torch.randn(1, 3, *size)
    features = ours.backbone(image)
    for name, index in {"conv3_3": 15, "conv4_3": 22, "conv5_3": 29}.items():
        expected = theirs[: index + 1](image)
        assert expected.std() > 0.1
        torch.testing.assert_close(features[name], expected)


@pytest.mark.parametrize("freeze_at", [0, 2, 5])
def test_freeze_at_freezes_exactly_the_first_blocks(freeze_at):
    backbone = VGG16(channels=CHANNELS, freeze_at=freeze_at)
    sum(x.sum() for x in backbone(torch.rand(1, 3, 32, 32)).values()).requires_grad_().backward()
    frozen = {int(name[4]) for name, p in backbone.named_parameters() if p.grad is None}
    trained = {int(name[4]) for name, p in backbone.named_parameters() if p.grad is not None}
    assert frozen == set(range(1, freeze_at + 1)) and trained == set(range(freeze_at + 1, 6))


def test_conv1_and_conv2_are_frozen_by_default():
    frozen = {n[:5] for n, p in VGG16(channels=CHANNELS).named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "conv2"}


def test_layers_after_the_last_feature_are_not_built():
    backbone = VGG16(channels=CHANNELS, out_features=["conv4_2", "conv2_1"])
    assert max(name for name, _ in backbone.named_parameters()) == "conv4_2.weight"
    assert set(backbone(torch.rand(1, 3, 32, 32))) == {"conv4_2", "conv2_1"}


def test_a_config_builds_it():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_vgg16_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 1
    cfg.MODEL.VGG.OUT_FEATURES = ["conv3_3"]
    with torch.device("meta"):
        backbone = build_backbone(cfg)
    assert backbone.output_shape() == {"conv3_3": ShapeSpec(channels=256, stride=4)}
    assert backbone.conv2_1.weight.requires_grad and not backbone.conv1_2.weight.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_features": ["conv5_4"]}, "conv5_4.*choose of.*conv5_3"),
        ({"out_features": []}, "choose of"),
        ({"freeze_at": 6}, r"freeze_at=6 is not in \[0, 5\]"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGG16(channels=CHANNELS, **arguments)
