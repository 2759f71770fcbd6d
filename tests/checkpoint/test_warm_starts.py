"""Weights of Detectron2 and torchvision: what they seed, what starts fresh, what does not fit."""

import pytest
import torch
import torchvision
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import instantiate

from hybrid_cascade import model_zoo, use_htc_heads, use_semantic_branch
from hybrid_cascade.checkpoint import SOURCES, convert

DETECTRON2, TORCHVISION = SOURCES["detectron2"], SOURCES["torchvision"]


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


@pytest.mark.parametrize(("builder", "reason"), [("vgg16_bn", "batch norm"), ("vgg19", "16 conv")])
def test_other_vggs_are_refused(builder, reason):
    with torch.device("meta"):
        weights = getattr(torchvision.models, builder)().state_dict()
    with pytest.raises(ValueError, match=reason):
        convert(TORCHVISION, weights)
