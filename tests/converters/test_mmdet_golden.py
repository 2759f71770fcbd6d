"""HTC here and in MMDetection 3.3.0 with the same weights and image: all results agree.

Values of order 1 may differ by 1e-4, boxes by 0.01 pixels.
"""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from hybrid_cascade.modeling.cascade.mask_branch import mask_features

SIZE = (192, 256)


def instances_of(boxes, **fields):
    return Instances(SIZE, **fields, proposal_boxes=Boxes(boxes))


def assert_close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance


@pytest.fixture(scope="module")
def batch(outputs):
    return [{"image": outputs["image_bgr"].flip(0), "height": SIZE[0], "width": SIZE[1]}]


@pytest.fixture(scope="module")
def features(golden_model, outputs):
    with torch.no_grad():
        maps = golden_model.backbone(outputs["preprocessed"])
        return golden_model.semantic_branch(maps, None)


def test_preprocessing_agrees(golden_model, batch, outputs):
    assert_close(golden_model.preprocess_image(batch).tensor, outputs["preprocessed"])


def test_pyramid_agrees_on_every_level(features, outputs):
    for level, expected in enumerate(outputs["fpn"], start=2):
        assert_close(features[0][f"p{level}"], expected)


def test_semantic_branch_agrees(features, outputs):
    assert_close(features[0]["semantic"], outputs["semantic_features"])
    assert_close(features[1], outputs["semantic_logits"])


@pytest.mark.parametrize("stage", [0, 1, 2])
@torch.no_grad()
def test_box_stage_agrees_on_the_boxes_that_enter_it(golden_model, features, outputs, stage):
    heads, expected = golden_model.roi_heads, outputs["box_stages"][stage]
    proposals = [instances_of(expected["input_boxes"])]
    maps = [features[0][f] for f in heads.box_in_features]
    logits, deltas = predictions = heads._run_stage(maps, proposals, stage)
    assert_close(logits, expected["cls_logits"])
    assert_close(deltas, expected["box_deltas"])
    (boxes,) = heads.box_predictor[stage].predict_boxes(predictions, proposals)
    boxes = Boxes(boxes)
    boxes.clip(SIZE)
    assert_close(boxes.tensor, expected["output_boxes"], tolerance=1e-3)


@torch.no_grad()
def test_cascade_from_the_recorded_proposals_agrees_in_probabilities(
    golden_model, features, outputs
):
    stages = golden_model.roi_heads._run_box_stages(
        features[0], [instances_of(outputs["proposal_boxes"])]
    )
    probs = [p.predict_probs(predictions, boxes)[0] for p, predictions, boxes, *_ in stages]
    assert_close(sum(probs) / 3, outputs["avg_probs"])


@torch.no_grad()
def test_mask_stages_agree_with_information_flow(golden_model, features, outputs):
    heads = golden_model.roi_heads
    maps = [features[0][f] for f in heads.mask_in_features]
    x = heads.mask_pooler(maps, [Boxes(outputs["mmdet_det_boxes"])])
    rows = torch.arange(len(x))
    for stage, y in enumerate(mask_features(heads.mask_head, heads.mask_information_flow, x)):
        logits = heads.mask_head[stage].predictor(
            heads.mask_head[stage].deconv_relu(heads.mask_head[stage].deconv(y))
        )
        assert_close(
            logits[rows, outputs["mmdet_det_labels"]], outputs["mask_logits_of_label"][stage]
        )


@torch.no_grad()
def test_proposals_are_the_same_set(golden_model, features, outputs, batch):
    images = golden_model.preprocess_image(batch)
    (ours,), _ = golden_model.proposal_generator(images, features[0])
    theirs = outputs["proposal_boxes"]
    distance = (theirs[:, None] - ours.proposal_boxes.tensor).abs().amax(dim=2)
    same = (distance < 1e-2) & (
        (outputs["proposal_scores"][:, None] - ours.objectness_logits.sigmoid()).abs() < 1e-4
    )
    assert same.any(dim=1).all() and same.any(dim=0).all()


@torch.no_grad()
def test_detections_and_masks_are_the_same_set_with_the_settings_of_mmdetection(
    golden_model, outputs, batch, monkeypatch
):
    # The two differences that are left: MMDetection 3 averages logits instead of probabilities,
    # and its masks are those of the last stage.
    monkeypatch.setattr(golden_model.roi_heads, "average_logits", True)
    monkeypatch.setattr(golden_model.roi_heads, "average_masks", False)
    (ours,) = golden_model.inference(batch, do_postprocess=False)
    distance = (outputs["mmdet_det_boxes"][:, None] - ours.pred_boxes.tensor).abs().amax(dim=2)
    same = (
        (distance < 1e-2)
        & ((outputs["mmdet_det_scores"][:, None] - ours.scores).abs() < 1e-4)
        & (outputs["mmdet_det_labels"][:, None] == ours.pred_classes)
    )
    assert same.any(dim=1).all() and same.any(dim=0).all()
    masks = outputs["mask_logits_of_label"][-1].sigmoid()
    assert_close(ours.pred_masks[same.int().argmax(dim=1), 0], masks)


@torch.no_grad()
def test_averaged_masks_are_the_mean_of_the_stages(golden_model, outputs):
    golden_model.roi_heads.average_masks = True
    found = Instances(SIZE)
    found.pred_boxes = Boxes(outputs["mmdet_det_boxes"])
    found.pred_classes = outputs["mmdet_det_labels"]
    batch = [{"image": outputs["image_bgr"].flip(0)}]
    (ours,) = golden_model.inference(batch, [found], do_postprocess=False)
    assert_close(ours.pred_masks[:, 0], outputs["mask_logits_of_label"].sigmoid().mean(dim=0))
