"""Caffe's files: which parameters they fill, what is refused, what the report warns of.

That MNC's layers compute the same is in test_caffe_mnc_outputs.py.
"""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from hybrid_cascade.converters import CAFFE_IMAGENET, CAFFE_MNC, convert, describe
from hybrid_cascade.modeling import ZF
from tests.caffemodel_writer import caffemodel

from ..small_configs import CONFIGS
from .mnc_caffe_weights import CHANNELS, CLASSES, FEATURES, MASK_SIDE, anchor_generator, our_shapes


def test_vgg16_fills_the_backbone_and_both_pathways(two_pathways):
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


def test_zf_fills_its_backbone():
    with torch.device("meta"):
        target = nn.ModuleDict({"backbone": ZF()}).state_dict()
    weights = {name.removeprefix("backbone."): tensor for name, tensor in target.items()}
    assert set(convert(CAFFE_IMAGENET, weights, target).state_dict) == set(target)


def test_mnc_fills_every_parameter(converted):
    assert set(converted) == set(our_shapes())


def test_the_config_of_the_published_network_takes_the_weights(mnc_weights):
    cfg = LazyConfig.load(str(CONFIGS / "mnc" / "mnc_vgg16_5stage_voc.py")).model
    cfg.backbone.channels = [CHANNELS] * 5
    cfg.proposal_generator.head.in_channels = CHANNELS
    heads = cfg.roi_heads
    heads.num_classes = CLASSES
    heads.mask_head.input_shape.channels = CHANNELS
    heads.mask_head.fc_dim, heads.mask_head.mask_side = 5, MASK_SIDE
    for head in (heads.masked_head, heads.box_head):
        head.input_shape.channels = CHANNELS
        head.fc_dims = [FEATURES, FEATURES]
    heads.predictor.input_shape.pathway_channels = FEATURES
    model = instantiate(cfg)
    parameters = dict(model.named_parameters())
    result = convert(CAFFE_MNC, mnc_weights, parameters)
    assert set(result.state_dict) == set(parameters) and not result.fresh
    assert "WARNING" not in "\n".join(describe(CAFFE_MNC, result, model, False))


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
def test_a_file_with_the_copies_of_stages_4_and_5_gives_the_same(
    tmp_path, mnc_weights, converted, old
):
    path = tmp_path / "mnc.caffemodel"
    copied = [n for n in mnc_weights if not n.startswith(("conv", "rpn"))]
    copies = {"_ext.".join(n.split(".")): mnc_weights[n] for n in copied}
    path.write_bytes(caffemodel({**mnc_weights, **copies}, old))
    result = convert(CAFFE_MNC, CAFFE_MNC.read(str(path), False), our_shapes())
    assert all(torch.equal(result.state_dict[name], converted[name]) for name in our_shapes())
    assert set(result.left) == set(copies) and "fc6_mask_ext.weight" in copies
    assert "share the weights" in result.left["bbox_pred_ext.bias"]


def test_the_tensors_of_the_file_are_not_changed(mnc_weights):
    before = {name: tensor.clone() for name, tensor in mnc_weights.items()}
    convert(CAFFE_MNC, mnc_weights, our_shapes())
    assert all(torch.equal(mnc_weights[name], before[name]) for name in before)


def test_stages_that_do_not_share_their_weights_are_refused(mnc_weights):
    mnc_weights["fc7_mask_ext.weight"] = mnc_weights["fc7_mask.weight"] + 1e-3
    with pytest.raises(ValueError, match="fc7_mask_ext.weight is not equal to fc7_mask.weight"):
        convert(CAFFE_MNC, mnc_weights, our_shapes())


@pytest.mark.parametrize(
    ("layer", "rows", "message"),
    [
        ("rpn_cls_score", 24, "rpn_cls_score.weight has 24 rows, but 18"),
        ("rpn_bbox_pred", 48, "rpn_bbox_pred.weight has 48 rows, but 36"),
        ("bbox_pred", 6, "bbox_pred.weight has 6 rows"),
        ("seg_cls_score", 9, r"Wrong shapes.*seg_cls_score.weight is \(9, 12\)"),
        ("mask_pred", 9, r"Wrong shapes.*mask_pred.weight is \(9, 5\), the model's \(4, 5\)"),
    ],
)
def test_layers_of_another_size_are_refused(mnc_weights, layer, rows, message):
    weight = mnc_weights[f"{layer}.weight"]
    mnc_weights[f"{layer}.weight"] = torch.zeros(rows, *weight.shape[1:])
    with pytest.raises(ValueError, match=message):
        convert(CAFFE_MNC, mnc_weights, our_shapes())


def test_a_missing_layer_is_an_error(mnc_weights):
    del mnc_weights["fc6_maskest.bias"]
    with pytest.raises(ValueError, match=r"no value \(1\): roi_heads.mask_head.fc.bias"):
        convert(CAFFE_MNC, mnc_weights, our_shapes())


@pytest.fixture
def model():
    """The parts of a detector that prepare images and make anchors."""
    model = nn.Module()
    model.input_format = "BGR"
    model.pixel_std = torch.ones(3, 1, 1)
    model.pixel_mean = torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1)
    model.proposal_generator = nn.Module()
    model.proposal_generator.anchor_generator = anchor_generator()
    return model


def report(model, mnc_weights, yaml=False):
    return "\n".join(
        describe(CAFFE_MNC, convert(CAFFE_MNC, mnc_weights, our_shapes()), model, yaml)
    )


def test_a_model_that_prepares_images_and_anchors_as_mnc_gets_no_warning(mnc_weights, model):
    text = report(model, mnc_weights)
    assert "WARNING" not in text and "fc6_mask -> roi_heads.masked_head.fc1 (2)" in text


@pytest.mark.parametrize("yaml", [False, True])
def test_the_report_asks_for_the_images_of_caffe_but_for_no_stride(mnc_weights, model, yaml):
    model.input_format = "RGB"
    text = report(model, mnc_weights, yaml)
    assert "WARNING" in text and "102.9801" in text and "stride" not in text.lower()
    text = report(None, mnc_weights, yaml)
    assert "MNC's published models expect" in text and "stride" not in text.lower()


@pytest.mark.parametrize(
    "change", [{"offset": 0.0}, {"sizes": [[64, 128]]}, {"sizes": [[64, 128, 512]]}]
)
def test_the_report_warns_of_other_anchors(mnc_weights, model, change):
    model.proposal_generator.anchor_generator = anchor_generator(**change)
    text = report(model, mnc_weights)
    assert "WARNING: the box deltas are for other anchors" in text
    assert '"model.proposal_generator.anchor_generator.offset=0.5"' in text
    assert 'MODEL.ANCHOR_GENERATOR.SIZES "[[128, 256, 512]]"' in report(
        model, mnc_weights, yaml=True
    )
