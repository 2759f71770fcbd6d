"""Cascade Mask R-CNN with a Swin Transformer here and in MMDetection 3.3.0: all results agree.

tests/data/record_cascade_mask_rcnn_swin.py has recorded them, with random weights that have the
names of Swin-Transformer-Object-Detection. Values of order 1 may differ by 1e-4, boxes by 0.01
pixels.
"""

from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, Instances

from hybrid_cascade.converters import MMDET, convert
from hybrid_cascade.engine import build_model, load_config

DATA = Path(__file__).resolve().parents[1] / "data"
SIZE = (96, 128)


@pytest.fixture(scope="module")
def recorded():
    return torch.load(DATA / "cascade_mask_rcnn_swin_tiny_mmdet.pth", weights_only=True)


@pytest.fixture(scope="module")
def outputs(recorded):
    return recorded["outputs"]


def build():
    config = DATA / "cascade_mask_rcnn_swin_tiny_mmdet.py"
    return build_model(load_config(str(config), ["train.device=cpu"])).eval()


@pytest.fixture(scope="module")
def model(recorded):
    model = build()
    converted = convert(MMDET, recorded["state_dict"], model.state_dict())
    model.load_state_dict(converted.state_dict)
    return model


@pytest.fixture(scope="module")
def batch(outputs):
    return [{"image": outputs["image_bgr"].flip(0), "height": SIZE[0], "width": SIZE[1]}]


@pytest.fixture(scope="module")
def features(model, batch):
    with torch.no_grad():
        return model.backbone(model.preprocess_image(batch).tensor)


def assert_close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance


def test_every_tensor_is_used_and_every_parameter_gets_a_value(recorded):
    ours = build().state_dict()
    converted = convert(MMDET, recorded["state_dict"], ours)
    assert all("counter" in reason for reason in converted.left.values())
    named = {name for name in ours if not name.endswith("num_batches_tracked")}
    assert named <= converted.state_dict.keys()
    for name, tensor in ours.items():
        if name.endswith("relative_position_index"):
            assert torch.equal(converted.state_dict[name], tensor)


def test_names_of_version_3_give_the_same_tensors(recorded):
    ours = build().state_dict()
    expected = convert(MMDET, recorded["state_dict"], ours).state_dict
    version_3 = {k: v for k, v in recorded["state_dict"].items() if not k.startswith("backbone.")}
    for name, original in recorded["names_of_version_3"].items():
        version_3[name] = recorded["tensors_of_version_3"].get(
            name, recorded["state_dict"][original]
        )
    found = convert(MMDET, version_3, ours).state_dict
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_pyramid_agrees_on_every_level(features, outputs):
    for level, expected in enumerate(outputs["fpn"], start=2):
        assert_close(features[f"p{level}"], expected)


@torch.no_grad()
def test_rpn_agrees_on_every_level(model, features, outputs):
    rpn = model.proposal_generator
    objectness, deltas = rpn.rpn_head([features[f] for f in rpn.in_features])
    for found, expected in ((objectness, "objectness"), (deltas, "anchor_deltas")):
        for actual, level in zip(found, outputs[expected], strict=True):
            assert_close(actual, level)


@pytest.mark.parametrize("stage", [0, 1, 2])
@torch.no_grad()
def test_box_head_agrees_on_the_boxes_that_enter_it(model, features, outputs, stage):
    expected = outputs["box_stages"][stage]
    heads = model.roi_heads
    pooled = heads.box_pooler(
        [features[f] for f in heads.box_in_features], [Boxes(expected["input_boxes"])]
    )
    logits, deltas = heads.box_predictor[stage](heads.box_head[stage](pooled))
    assert_close(logits, expected["cls_logits"])
    assert_close(deltas, expected["box_deltas"])


@torch.no_grad()
def test_each_stage_moves_a_box_by_the_deltas_of_its_best_class(model, features, outputs):
    proposals = Instances(SIZE, proposal_boxes=Boxes(outputs["proposal_boxes"]))
    stages = list(model.roi_heads._run_box_stages(features, [proposals]))
    for stage, expected in zip(stages[1:], outputs["box_stages"][1:], strict=True):
        assert_close(stage.proposals[0].proposal_boxes.tensor, expected["input_boxes"], 0.01)


@torch.no_grad()
def test_detections_are_the_same_set(model, batch, outputs):
    (ours,) = model.inference(batch, do_postprocess=False)
    distance = (outputs["mmdet_det_boxes"][:, None] - ours.pred_boxes.tensor).abs().amax(dim=2)
    same = (
        (distance < 1e-2)
        & ((outputs["mmdet_det_scores"][:, None] - ours.scores).abs() < 1e-4)
        & (outputs["mmdet_det_labels"][:, None] == ours.pred_classes)
    )
    assert same.any(dim=1).all() and same.any(dim=0).all()
    masks = outputs["mask_probs_of_label"]
    assert_close(ours.pred_masks[same.int().argmax(dim=1)[: len(masks)], 0], masks)
