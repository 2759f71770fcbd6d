"""Weights of Detectron2, torchvision, Caffe: what they seed, what starts fresh, what misfits."""

import pytest
import torch
import torchvision
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from torch import nn

from hybrid_cascade import model_zoo, use_htc_heads, use_semantic_branch
from hybrid_cascade.converters import SOURCES, convert
from hybrid_cascade.modeling import VGG16, ZF, SeparateBackbones

DETECTRON2, TORCHVISION = SOURCES["detectron2"], SOURCES["torchvision"]
CAFFE_IMAGENET = SOURCES["caffe-imagenet"]


@pytest.fixture(scope="module")
def mask_rcnn():
    with torch.device("meta"):
        return instantiate(detectron2_zoo.get_config("common/models/mask_rcnn_fpn.py").model)


@pytest.fixture(scope="module")
def htc():
    cfg = detectron2_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    use_htc_heads(cfg)
    use_semantic_branch(cfg)
    with torch.device("meta"):
        return instantiate(cfg)


def test_mask_rcnn_seeds_every_stage_and_the_rest_is_listed(mask_rcnn, htc):
    result = convert(DETECTRON2, mask_rcnn.state_dict(), htc.state_dict())
    assert set(result.state_dict) | set(result.fresh) == set(htc.state_dict())
    for stage in range(3):
        for name in ("box_head.{}.fc1", "box_predictor.{}.cls_score", "mask_head.{}.mask_fcn1"):
            assert f"roi_heads.{name.format(stage)}.weight" in result.state_dict
    modules = {name.rpartition(".")[0] for name in result.fresh}
    fresh_roi_heads = {m.removeprefix("roi_heads.") for m in modules if m.startswith("roi_heads.")}
    # The boxes of Mask R-CNN are regressed for each class.
    assert fresh_roi_heads == {
        *(f"box_predictor.{stage}.bbox_pred" for stage in range(3)),
        "mask_information_flow.0",
        "mask_information_flow.1",
    }
    assert all(m.startswith(("roi_heads.", "semantic_branch.")) for m in modules)


def test_stages_of_a_cascade_keep_their_numbers(mask_rcnn, htc):
    weights = dict(mask_rcnn.state_dict())
    for name in [n for n in weights if n.startswith("roi_heads.box")]:
        kind, _, what = name.removeprefix("roi_heads.").partition(".")
        tensor = weights.pop(name)
        for stage in range(3):
            weights[f"roi_heads.{kind}.{stage}.{what}"] = tensor
    result = convert(DETECTRON2, weights, htc.state_dict())
    assert ("roi_heads.box_head.2.fc1.bias",) * 2 in result.mapped
    assert ("roi_heads.mask_head.deconv.bias", "roi_heads.mask_head.2.deconv.bias") in result.mapped


def test_layers_for_other_classes_start_fresh(mask_rcnn, htc):
    weights = dict(mask_rcnn.state_dict())
    weights["roi_heads.box_predictor.cls_score.weight"] = torch.empty(4, 1024, device="meta")
    fresh = convert(DETECTRON2, weights, htc.state_dict()).fresh
    assert "other classes" in fresh["roi_heads.box_predictor.1.cls_score.weight"]


def test_other_wrong_shapes_are_an_error(mask_rcnn, htc):
    weights = dict(mask_rcnn.state_dict())
    weights["roi_heads.box_head.fc1.weight"] = torch.empty(1024, 8, device="meta")
    with pytest.raises(ValueError, match="Wrong shapes"):
        convert(DETECTRON2, weights, htc.state_dict())


def test_buffers_that_the_config_makes_are_left(mask_rcnn):
    weights = {**mask_rcnn.state_dict(), "pixel_mean": torch.zeros(3, 1, 1)}
    weights["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    assert len(convert(DETECTRON2, weights).left) == 2


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
    result = convert(TORCHVISION, weights, target)
    fresh = [n for n in result.fresh if ".bottom_up." in n and "conv2_offset" not in n]
    assert not fresh and "roi_heads.box_head.0.fc1.weight" in result.fresh
    assert {n for n in result.left if "num_batches" not in n} == {"fc.weight", "fc.bias"}


def test_a_shallower_resnet_does_not_fit():
    with torch.device("meta"):
        weights = torchvision.models.resnet50().state_dict()
        target = instantiate(model_zoo.get_config("htc/htc_r101_fpn_20e.py").model).state_dict()
    with pytest.raises(ValueError, match="get no value.*res4.6.conv1.weight"):
        convert(TORCHVISION, weights, target)


def test_vgg16_gets_the_names_of_its_layers():
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
    result = convert(TORCHVISION, weights)
    assert len(result.state_dict) == 26
    assert ("features.0.bias", "backbone.bottom_up.conv1_1.bias") in result.mapped
    assert ("features.28.weight", "backbone.bottom_up.conv5_3.weight") in result.mapped
    assert all(n.startswith("classifier.") for n in result.left)


@pytest.fixture(scope="module")
def two_pathways():
    """The parts of MNC that ImageNet weights are for, and those of one with narrower heads."""
    heads = {"masked_head": 4096, "box_head": 4096, "narrow_head": 1024}
    with torch.device("meta"):
        model = nn.ModuleDict({"backbone": VGG16(), "roi_heads": nn.ModuleDict()})
        for name, size in heads.items():
            shape = ShapeSpec(channels=512, height=7, width=7)
            head = FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[size, size])
            model["roi_heads"][name] = head
    return model


def test_fully_connected_layers_of_vgg16_seed_both_pathways(two_pathways):
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
    result = convert(TORCHVISION, weights, two_pathways.state_dict())
    for head in ("masked_head", "box_head"):
        assert ("classifier.0.weight", f"roi_heads.{head}.fc1.weight") in result.mapped
        assert ("classifier.3.bias", f"roi_heads.{head}.fc2.bias") in result.mapped
    assert set(result.left) == {"classifier.6.weight", "classifier.6.bias"}
    assert all("narrow_head" in name for name in result.fresh) and len(result.fresh) == 4


def test_a_vgg_is_not_asked_for_the_stride_of_a_resnet(two_pathways, mask_rcnn):
    (images,) = TORCHVISION.preprocessing
    for yaml in (False, True):
        assert "stride" not in images.overrides(yaml, two_pathways).lower()
        assert "stride" in images.overrides(yaml, mask_rcnn).lower()


def test_heads_of_other_sizes_start_fresh(two_pathways):
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
    target = two_pathways.state_dict()
    for name in [n for n in target if n.startswith("roi_heads.") and "narrow" not in n]:
        target[name] = target[name.replace("masked_", "narrow_").replace("box_", "narrow_")]
    result = convert(TORCHVISION, weights, target)
    assert "roi_heads.box_head.fc1.weight" in result.fresh
    assert "no RoI head of this model has" in result.left["classifier.0.weight"]
    assert result.left["classifier.6.bias"] == "the classification layers"


def test_caffes_vgg16_seeds_backbone_and_both_pathways(two_pathways):
    target = two_pathways.state_dict()
    weights = {n.removeprefix("backbone."): w for n, w in target.items() if "backbone" in n}
    for i, layer in ((1, "fc6"), (2, "fc7")):
        for what in ("weight", "bias"):
            weights[f"{layer}.{what}"] = target[f"roi_heads.box_head.fc{i}.{what}"]
    result = convert(CAFFE_IMAGENET, {**weights, "fc8.bias": torch.zeros(1000)}, target)
    assert ("fc6.bias", "roi_heads.masked_head.fc1.bias") in result.mapped
    assert ("conv4_3.weight", "backbone.conv4_3.weight") in result.mapped
    assert set(result.left) == {"fc8.bias"} and len(result.fresh) == 4
    del weights["conv4_3.weight"]
    with pytest.raises(ValueError, match="get no value.*backbone.conv4_3.weight"):
        convert(CAFFE_IMAGENET, weights, target)


def test_every_one_of_separate_backbones_is_seeded():
    with torch.device("meta"):
        weights = torchvision.models.vgg16().state_dict()
        backbones = SeparateBackbones(**{"proposals": VGG16(), "mask": VGG16()})
    target = nn.ModuleDict({"backbone": backbones}).state_dict()
    result = convert(TORCHVISION, weights, target)
    assert set(result.state_dict) == set(target)


def test_zf_gets_the_convolutions_of_caffe():
    with torch.device("meta"):
        target = nn.ModuleDict({"backbone": ZF()}).state_dict()
    weights = {name.removeprefix("backbone."): tensor for name, tensor in target.items()}
    assert set(convert(CAFFE_IMAGENET, weights, target).state_dict) == set(target)


@pytest.mark.parametrize(("builder", "reason"), [("vgg16_bn", "batch norm"), ("vgg19", "16 conv")])
def test_other_vggs_are_refused(builder, reason):
    with torch.device("meta"):
        weights = getattr(torchvision.models, builder)().state_dict()
    with pytest.raises(ValueError, match=reason):
        convert(TORCHVISION, weights)
