"""Names of MMDetection's parameters. That outputs agree is in test_mmdet_golden.py."""

import pytest
import torch
from detectron2.config import instantiate

from hybrid_cascade import model_zoo
from hybrid_cascade.converters import MMDET, convert
from hybrid_cascade.converters.layer_names import Layout


def rename(*names):
    return [name for old in names for name in MMDET.rename(old, Layout())]


def zeros(*names):
    return {name: torch.zeros(1) for name in names}


def build_names(config, **changes):
    """Return the state dict of a config's model, without memory for the tensors."""
    cfg = model_zoo.get_config(config)
    for key, value in changes.items():
        cfg.model.backbone.bottom_up.stages[key] = value
    with torch.device("meta"):
        return instantiate(cfg.model).state_dict()


def mmdet_names(blocks, dcn=False, semantic=True, flow=True):
    """Return the names of the parameters of MMDetection's cascades, as its modules have them."""
    convs = {"backbone.conv1": ["weight"]}
    norms = ["backbone.bn1"]
    for layer, number in enumerate(blocks, start=1):
        for block in range(number):
            prefix = f"backbone.layer{layer}.{block}."
            for i in (1, 2, 3):
                convs[f"{prefix}conv{i}"] = ["weight"]
                norms.append(f"{prefix}bn{i}")
            if block == 0:
                convs[f"{prefix}downsample.0"] = ["weight"]
                norms.append(f"{prefix}downsample.1")
            if dcn and layer > 1:
                convs[f"{prefix}conv2.conv_offset"] = ["weight", "bias"]
    layers = [f"neck.{k}_convs.{i}.conv" for k in ("lateral", "fpn") for i in range(4)]
    layers += [f"rpn_head.rpn_{x}" for x in ("conv", "cls", "reg")]
    for stage in range(3):
        box, mask = (f"roi_head.{x}_head.{stage}." for x in ("bbox", "mask"))
        layers += [box + x for x in ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")]
        layers += [f"{mask}convs.{i}.conv" for i in range(4)]
        layers += [mask + "upsample", mask + "conv_logits"]
        layers += [mask + "conv_res.conv"] * (flow and stage > 0)
    if semantic:
        head = "roi_head.semantic_head."
        layers += [f"{head}lateral_convs.{i}.conv" for i in range(5)]
        layers += [f"{head}convs.{i}.conv" for i in range(4)]
        layers += [head + "conv_embedding.conv", head + "conv_logits"]
    convs.update({layer: ["weight", "bias"] for layer in layers})
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [
        *(f"{layer}.{what}" for layer, whats in convs.items() for what in whats),
        *(f"{norm}.{what}" for norm in norms for what in statistics),
    ]


@pytest.mark.parametrize(
    ("config", "source"),
    [
        ("htc/htc_r50_fpn_1x.py", {"blocks": (3, 4, 6, 3)}),
        ("htc/htc_without_semantic_r50_fpn_1x.py", {"blocks": (3, 4, 6, 3), "semantic": False}),
        ("htc/htc_r101_fpn_20e.py", {"blocks": (3, 4, 23, 3)}),
        ("htc/htc_x101_32x4d_fpn_20e.py", {"blocks": (3, 4, 23, 3)}),
        ("htc/htc_x101_64x4d_fpn_20e.py", {"blocks": (3, 4, 23, 3)}),
        ("htc/htc_x101_64x4d_fpn_dcn_20e.py", {"blocks": (3, 4, 23, 3), "dcn": True}),
        (
            "cascade_mask_rcnn/cascade_mask_rcnn_r50_fpn_1x.py",
            {"blocks": (3, 4, 6, 3), "semantic": False, "flow": False},
        ),
    ],
)
def test_published_models_fill_every_parameter_of_our_configs(config, source):
    ours = build_names(config)
    renamed = rename(*(n for n in mmdet_names(**source) if not n.endswith("batches_tracked")))
    assert sorted(renamed) == sorted(ours)


def test_mask_rcnn_has_no_stages():
    assert rename(
        "roi_head.bbox_head.shared_fcs.1.weight",
        "roi_head.bbox_head.fc_reg.bias",
        "roi_head.mask_head.convs.3.conv.weight",
    ) == [
        "roi_heads.box_head.fc2.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
        "roi_heads.mask_head.mask_fcn4.weight",
    ]


def test_norms_and_offsets_are_found_under_all_their_names():
    assert rename(
        "neck.fpn_convs.0.bn.running_mean",
        "roi_head.bbox_head.2.shared_convs.0.gn.weight",
        "backbone.layer2.0.conv2_offset.bias",
        "roi_head.semantic_head.lateral_convs.1.bn.weight",
    ) == [
        "backbone.fpn_output2.norm.running_mean",
        "roi_heads.box_head.2.conv1.norm.weight",
        "backbone.bottom_up.res3.0.conv2_offset.bias",
        "semantic_branch.lateral_convs.p3.norm.weight",
    ]


def test_tensors_that_are_not_used_are_listed_with_a_reason():
    left = convert(
        MMDET,
        zeros(
            "backbone.conv1.weight",
            "backbone.bn1.num_batches_tracked",
            "roi_head.mask_head.0.conv_res.conv.weight",
            "roi_head.mask_iou_head.fc.weight",
        ),
    ).left
    assert "counter" in left["backbone.bn1.num_batches_tracked"]
    assert "no mask stage before it" in left["roi_head.mask_head.0.conv_res.conv.weight"]
    assert "not a name" in left["roi_head.mask_iou_head.fc.weight"]


def test_a_file_of_version_1_is_refused():
    with pytest.raises(ValueError, match="MMDetection 1.x.*upgrade_model_version"):
        convert(MMDET, zeros("backbone.conv1.weight", "bbox_head.0.fc_cls.weight"))


def test_the_usual_preprocessing_is_that_of_our_configs(tiny_model):
    pytorch_style, caffe_style = MMDET.preprocessing
    assert pytorch_style.fits(tiny_model) and not caffe_style.fits(tiny_model)
    tiny_model.backbone.bottom_up.res3[0].conv1.stride = (2, 2)
    assert not pytorch_style.fits(tiny_model)
