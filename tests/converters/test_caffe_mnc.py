"""MNC's published weights: a file of the same layout, and the numbers that both models compute.

The real file has 512 channels, 4096 features and 20 classes; this one has few.
"""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import nn
from torch.nn import functional as F

from hybrid_cascade.converters import CAFFE_MNC, convert, describe
from hybrid_cascade.modeling import VGG16
from tests.caffemodel_writer import caffemodel
from tests.conftest import CONFIGS

CHANNELS, FEATURES, CLASSES, MASK_SIDE = 4, 6, 3, 2
# py-faster-rcnn prints these anchors (x1, y1, x2, y2, all inclusive) of the first cell, in MATLAB's
# coordinates, which start at 1.
ANCHORS = torch.tensor(
    [
        [-83.0, -39, 100, 56],
        [-175, -87, 192, 104],
        [-359, -183, 376, 200],
        [-55, -55, 72, 72],
        [-119, -119, 136, 136],
        [-247, -247, 264, 264],
        [-35, -79, 52, 96],
        [-79, -167, 96, 184],
        [-167, -343, 184, 360],
    ]
)


def mnc_weights():
    """The layers of the 5-stage network in Caffe, without the copies of stages 4 and 5."""
    convs = VGG16(channels=[CHANNELS] * 5).state_dict()
    layers = {
        "rpn_conv_3x3": (CHANNELS, CHANNELS, 3, 3),
        "rpn_cls_score": (2 * 9, CHANNELS, 1, 1),
        "rpn_bbox_pred": (4 * 9, CHANNELS, 1, 1),
        "fc6_maskest": (5, CHANNELS * 14 * 14),
        "mask_pred": (MASK_SIDE**2, 5),
        "fc6": (FEATURES, CHANNELS * 7 * 7),
        "fc7": (FEATURES, FEATURES),
        "fc6_mask": (FEATURES, CHANNELS * 7 * 7),
        "fc7_mask": (FEATURES, FEATURES),
        "cls_score": (CLASSES + 1, 2 * FEATURES),
        "seg_cls_score": (CLASSES + 1, 2 * FEATURES),
        "bbox_pred": (4 * (CLASSES + 1), 2 * FEATURES),
    }
    weights = {name: torch.randn_like(tensor) for name, tensor in convs.items()}
    for layer, shape in layers.items():
        weights[f"{layer}.weight"] = torch.randn(shape) * 0.1
        weights[f"{layer}.bias"] = torch.randn(shape[0]) * 0.1
    return weights


def our_shapes():
    """Names and shapes of the model here."""
    layers = {
        "proposal_generator.rpn_head.conv": (CHANNELS, CHANNELS, 3, 3),
        "proposal_generator.rpn_head.objectness_logits": (9, CHANNELS, 1, 1),
        "proposal_generator.rpn_head.anchor_deltas": (36, CHANNELS, 1, 1),
        "roi_heads.mask_head.fc": (5, CHANNELS * 14 * 14),
        "roi_heads.mask_head.predictor": (MASK_SIDE**2, 5),
        "roi_heads.box_head.fc1": (FEATURES, CHANNELS * 7 * 7),
        "roi_heads.box_head.fc2": (FEATURES, FEATURES),
        "roi_heads.masked_head.fc1": (FEATURES, CHANNELS * 7 * 7),
        "roi_heads.masked_head.fc2": (FEATURES, FEATURES),
        "roi_heads.predictor.cls_score": (CLASSES + 1, 2 * FEATURES),
        "roi_heads.predictor.box_cls_score": (CLASSES + 1, 2 * FEATURES),
        "roi_heads.predictor.bbox_pred": (4 * CLASSES, 2 * FEATURES),
    }
    target = {f"backbone.{n}": p for n, p in VGG16(channels=[CHANNELS] * 5).state_dict().items()}
    for layer, shape in layers.items():
        target[f"{layer}.weight"] = torch.empty(shape)
        target[f"{layer}.bias"] = torch.empty(shape[0])
    return target


@pytest.fixture
def theirs():
    return mnc_weights()


@pytest.fixture
def ours(theirs):
    return convert(CAFFE_MNC, theirs, our_shapes()).state_dict


def linear(weights, layer, x):
    function = F.conv2d if weights[f"{layer}.weight"].dim() == 4 else F.linear
    return function(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])


def anchor_generator(sizes=((128, 256, 512),), offset=0.5):
    """Detectron2's, as our config of MNC has it."""
    return DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=[[0.5, 1, 2]], strides=[16], offset=offset
    )


def decode_like_mnc(boxes, deltas):
    """Boxes (R, 4) whose last pixels count, moved by deltas (R, 4)."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    center = boxes[:, :2] + size / 2 + deltas[:, :2] * size
    size = size * deltas[:, 2:].exp()
    return torch.cat([center - size / 2, center + size / 2], dim=1)


def test_every_parameter_gets_a_value(ours):
    assert set(ours) == set(our_shapes())


def test_the_config_of_the_published_network_takes_the_weights(theirs):
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
    heads.predictor.input_shape.channels = 2 * FEATURES
    model = instantiate(cfg)
    parameters = dict(model.named_parameters())
    result = convert(CAFFE_MNC, theirs, parameters)
    assert set(result.state_dict) == set(parameters) and not result.fresh
    assert "WARNING" not in "\n".join(describe(CAFFE_MNC, result, model, False))


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
def test_a_file_with_the_copies_of_stages_4_and_5_gives_the_same(tmp_path, theirs, ours, old):
    path = tmp_path / "mnc.caffemodel"
    copied = [n for n in theirs if not n.startswith(("conv", "rpn"))]
    copies = {"_ext.".join(n.split(".")): theirs[n] for n in copied}
    path.write_bytes(caffemodel({**theirs, **copies}, old))
    result = convert(CAFFE_MNC, CAFFE_MNC.read(str(path), False), our_shapes())
    assert all(torch.equal(result.state_dict[name], ours[name]) for name in our_shapes())
    assert set(result.left) == set(copies) and "fc6_mask_ext.weight" in copies
    assert "share the weights" in result.left["bbox_pred_ext.bias"]


@torch.no_grad()
def test_proposals_and_their_scores_are_those_of_the_anchors_of_caffe(theirs, ours):
    x = torch.randn(1, CHANNELS, 2, 3)
    # Their outputs in the order (height, width, anchor).
    scores = linear(theirs, "rpn_cls_score", x).view(1, 2, -1, 3).softmax(dim=1)
    scores = scores.view(1, 18, 2, 3)[:, 9:].permute(0, 2, 3, 1).reshape(2, 3, 9)
    deltas = linear(theirs, "rpn_bbox_pred", x).permute(0, 2, 3, 1).reshape(-1, 4)
    shift_y, shift_x = torch.meshgrid(torch.arange(2) * 16, torch.arange(3) * 16, indexing="ij")
    shifts = torch.stack([shift_x, shift_y] * 2, dim=-1).view(-1, 1, 4)
    boxes = decode_like_mnc((ANCHORS - 1 + shifts).view(-1, 4), deltas).view(2, 3, 9, 4)

    head = "proposal_generator.rpn_head"
    our_scores = linear(ours, f"{head}.objectness_logits", x).sigmoid().permute(0, 2, 3, 1)[0]
    our_deltas = linear(ours, f"{head}.anchor_deltas", x).view(9, 4, 2, 3).permute(2, 3, 0, 1)
    anchors = anchor_generator()([x])[0].tensor
    transform = Box2BoxTransform(weights=(1, 1, 1, 1))
    our_boxes = transform.apply_deltas(our_deltas.reshape(-1, 4), anchors).view(2, 3, 9, 4)

    # Ours has the shapes of each size together, theirs the sizes of each shape.
    order = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    torch.testing.assert_close(our_scores, scores[..., order])
    torch.testing.assert_close(our_boxes, boxes[..., order, :], rtol=1e-5, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("their_layer", "our_layer"),
    [("seg_cls_score", "cls_score"), ("cls_score", "box_cls_score")],
)
def test_every_class_keeps_its_probability(theirs, ours, their_layer, our_layer):
    x = torch.randn(5, 2 * FEATURES)
    expected = linear(theirs, their_layer, x).softmax(dim=1)
    actual = linear(ours, f"roi_heads.predictor.{our_layer}", x).softmax(dim=1)
    torch.testing.assert_close(actual[:, :-1], expected[:, 1:])
    torch.testing.assert_close(actual[:, -1], expected[:, 0])


@torch.no_grad()
def test_boxes_of_every_class_are_moved_alike(theirs, ours):
    x = torch.randn(5, 2 * FEATURES)
    inclusive = torch.tensor([[10.0, 20, 59, 99]]).repeat(5, 1)
    boxes = inclusive + torch.tensor([0, 0, 1, 1])
    deltas = linear(theirs, "bbox_pred", x)
    our_deltas = linear(ours, "roi_heads.predictor.bbox_pred", x)
    moved = Box2BoxTransform(weights=(10, 10, 5, 5)).apply_deltas(our_deltas, boxes)
    for k in range(CLASSES):
        expected = decode_like_mnc(inclusive, deltas[:, 4 * (k + 1) : 4 * (k + 2)])
        torch.testing.assert_close(moved[:, 4 * k : 4 * k + 4], expected)


@torch.no_grad()
def test_pathways_join_as_masked_then_box(theirs, ours):
    masked, box = torch.rand(2, 5, CHANNELS, 7, 7)
    features = [
        linear(theirs, f"fc7{s}", linear(theirs, f"fc6{s}", x.flatten(1)).relu()).relu()
        for s, x in (("_mask", masked), ("", box))
    ]
    our_features = [
        linear(ours, f"{h}.fc2", linear(ours, f"{h}.fc1", x.flatten(1)).relu()).relu()
        for h, x in (("roi_heads.masked_head", masked), ("roi_heads.box_head", box))
    ]
    expected = linear(theirs, "seg_cls_score", torch.cat(features, dim=1)).roll(-1, 1)
    actual = linear(ours, "roi_heads.predictor.cls_score", torch.cat(our_features, dim=1))
    torch.testing.assert_close(actual, expected)


def test_what_has_one_order_is_untouched(theirs, ours):
    for their_layer, our_layer in {
        "conv5_3": "backbone.conv5_3",
        "rpn_conv_3x3": "proposal_generator.rpn_head.conv",
        "fc6_maskest": "roi_heads.mask_head.fc",
        "mask_pred": "roi_heads.mask_head.predictor",
    }.items():
        for what in ("weight", "bias"):
            assert torch.equal(theirs[f"{their_layer}.{what}"], ours[f"{our_layer}.{what}"])


def test_the_file_is_not_changed_in_place(theirs):
    before = {name: tensor.clone() for name, tensor in theirs.items()}
    convert(CAFFE_MNC, theirs, our_shapes())
    assert all(torch.equal(theirs[name], before[name]) for name in before)


def test_stages_that_do_not_share_their_weights_are_refused(theirs):
    theirs["fc7_mask_ext.weight"] = theirs["fc7_mask.weight"] + 1e-3
    with pytest.raises(ValueError, match="fc7_mask_ext.weight is not equal to fc7_mask.weight"):
        convert(CAFFE_MNC, theirs, our_shapes())


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
def test_layers_of_another_size_are_refused(theirs, layer, rows, message):
    weight = theirs[f"{layer}.weight"]
    theirs[f"{layer}.weight"] = torch.zeros(rows, *weight.shape[1:])
    with pytest.raises(ValueError, match=message):
        convert(CAFFE_MNC, theirs, our_shapes())


def test_a_missing_layer_is_an_error(theirs):
    del theirs["fc6_maskest.bias"]
    with pytest.raises(ValueError, match=r"no value \(1\): roi_heads.mask_head.fc.bias"):
        convert(CAFFE_MNC, theirs, our_shapes())


@pytest.fixture
def model():
    """What of a detector says how it prepares images and where its anchors are."""
    model = nn.Module()
    model.input_format = "BGR"
    model.pixel_std = torch.ones(3, 1, 1)
    model.pixel_mean = torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1)
    model.proposal_generator = nn.Module()
    model.proposal_generator.anchor_generator = anchor_generator()
    return model


def report(model, theirs, yaml=False):
    return "\n".join(describe(CAFFE_MNC, convert(CAFFE_MNC, theirs, our_shapes()), model, yaml))


def test_a_model_that_prepares_images_and_anchors_as_mnc_gets_no_warning(theirs, model):
    text = report(model, theirs)
    assert "WARNING" not in text and "fc6_mask -> roi_heads.masked_head.fc1 (2)" in text


@pytest.mark.parametrize("yaml", [False, True])
def test_the_report_asks_for_the_images_of_caffe_and_no_resnet(theirs, model, yaml):
    model.input_format = "RGB"
    text = report(model, theirs, yaml)
    assert "WARNING" in text and "102.9801" in text and "stride" not in text.lower()
    text = report(None, theirs, yaml)
    assert "MNC's published models expect" in text and "stride" not in text.lower()


@pytest.mark.parametrize(
    "change", [{"offset": 0.0}, {"sizes": [[64, 128]]}, {"sizes": [[64, 128, 512]]}]
)
def test_the_report_warns_of_other_anchors(theirs, model, change):
    model.proposal_generator.anchor_generator = anchor_generator(**change)
    text = report(model, theirs)
    assert "WARNING: the box deltas are for other anchors" in text
    assert '"model.proposal_generator.anchor_generator.offset=0.5"' in text
    assert 'MODEL.ANCHOR_GENERATOR.SIZES "[[128, 256, 512]]"' in report(model, theirs, yaml=True)
