from dataclasses import replace

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes

from hybrid_cascade.modeling import ImageMasks
from hybrid_cascade.modeling.mnc import mask_voting
from hybrid_cascade.modeling.mnc.candidates import Candidates

from .small_heads import (
    CLASSES,
    SIDE,
    SIZES,
    infer,
    make_features,
    make_heads,
    make_proposals,
    make_targets,
)


def test_candidates_come_from_every_pair_of_stages(make_ground_truth):
    targets = make_targets(make_ground_truth)
    heads = make_heads().eval()
    proposals = make_proposals(targets)
    with torch.no_grad():
        five = heads.find_candidates(make_features(), proposals)
        heads.test_stages = 3
        three = heads.find_candidates(make_features(), proposals)
    for image, (first, second) in enumerate(five):
        [alone] = three[image]
        assert torch.equal(alone.scores, first.scores)
        assert torch.equal(first.boxes, proposals[image].proposal_boxes.tensor)
        # Stage 4 sees what the best class of stage 3 makes of the box, clipped to the image.
        best = first.scores[:, :-1].argmax(dim=1)
        refined = Boxes(first.class_boxes.view(-1, CLASSES, 4)[torch.arange(len(best)), best])
        refined.clip(SIZES[image])
        torch.testing.assert_close(second.boxes, refined.tensor)
        assert second.masks.shape == (len(best), SIDE, SIDE)
        assert (first.is_last, second.is_last, alone.is_last) == (False, True, True)
        assert second.masks.min() >= 0 and second.masks.max() <= 1


def test_outputs_of_inference(make_ground_truth):
    targets = make_targets(make_ground_truth)
    heads = make_heads()
    voted = infer(heads, targets)[0]
    assert isinstance(voted.pred_masks, ImageMasks) and voted.pred_masks.tensor.any()
    heads.test_output = "nms"
    plain = infer(heads, targets)[0]
    assert plain.pred_masks.shape[1:] == (1, SIDE, SIDE)
    candidates = heads.find_candidates(make_features(), make_proposals(targets))[0]
    everything = torch.cat([c.boxes for c in candidates])
    assert (plain.pred_boxes.tensor[:, None] == everything).all(dim=2).any(dim=1).all()
    heads.test_output = "boxes"
    boxes = infer(heads, targets)[0]
    assert not boxes.has("pred_masks")
    heads.test_stages = 3
    assert not torch.equal(infer(heads, targets)[0].scores, boxes.scores)


def test_candidates_of_several_models_vote_together(make_ground_truth):
    heads = make_heads(predictor={"test_score_thresh": 0.0})
    one = Candidates(
        is_last=True,
        boxes=torch.tensor([[10.0, 10.0, 30.0, 30.0]]),
        masks=torch.ones(1, SIDE, SIDE),
        scores=torch.tensor([[0.6, 0.1, 0.1, 0.2]]),
        box_scores=torch.tensor([[0.6, 0.1, 0.1, 0.2]]),
        class_boxes=torch.zeros(1, 12),
    )
    nothing = torch.zeros(1, SIDE, SIDE)
    other = replace(one, masks=nothing, scores=one.scores / 2)
    found = heads.merge([one, other], (40, 40))
    best = found[found.pred_classes == 0]
    # 2 / 3 of the votes are for all of the box, in whose corners the probability is 0.68 ** 2.
    assert len(best) == 1 and best.scores.item() == pytest.approx(0.6)
    assert best.pred_masks.tensor.sum() == 400 - 4
    heads.binarize_before_voting = True
    found = heads.merge([one, other], (40, 40))
    assert found.pred_masks.tensor[found.pred_classes == 0].sum() == 400
    stronger = replace(one, masks=nothing, scores=3 * one.scores)
    found = heads.merge([one, stronger], (40, 40))
    assert not found.has("pred_masks") or not found.pred_masks.tensor.any()


SETTINGS = {"test_score_thresh": 0.2, "test_topk_per_image": 7}


def joined_candidates(heads, make_ground_truth):
    with torch.no_grad():
        proposals = make_proposals(make_targets(make_ground_truth))
        candidates = heads.eval().find_candidates(make_features(), proposals)[0]
    fields = ("boxes", "masks", "scores")
    return candidates, [torch.cat([getattr(c, f) for c in candidates]) for f in fields]


def test_voting_obeys_its_settings(make_ground_truth):
    settings = {"nms_iou": 0.6, "merge_iou": 0.8, "mask_threshold": 0.6}
    settings["binarize_before_voting"] = True
    heads = make_heads(predictor=SETTINGS, **settings)
    candidates, (boxes, masks, scores) = joined_candidates(heads, make_ground_truth)
    found = heads.merge(candidates, SIZES[0])

    def vote(**change):
        arguments = {**settings, "topk": 7, "score_thresh": 0.2, **change}
        return mask_voting(boxes, masks, scores[:, :-1], SIZES[0], **arguments)

    def same(expected):
        return torch.equal(found.scores, expected.scores) and torch.equal(
            found.pred_masks.tensor, expected.pred_masks
        )

    assert len(found) and same(vote())
    defaults = {"nms_iou": 0.3, "merge_iou": 0.5, "mask_threshold": 0.4}
    for name, default in {**defaults, "binarize_before_voting": False}.items():
        assert not same(vote(**{name: default}))
    found = make_heads(predictor=SETTINGS).merge(candidates, SIZES[0])
    assert same(vote(**defaults, binarize_before_voting=False))


@pytest.mark.parametrize("output", ["nms", "boxes"])
@pytest.mark.parametrize(
    "setting", [{"test_score_thresh": 0.8}, {"nms_iou": 0.95}, {"test_topk_per_image": 2}]
)
def test_nms_obeys_its_settings(make_ground_truth, output, setting):
    """The heads' IoU, 0.3 by default as released, and the predictor's other thresholds."""
    heads = (
        make_heads(test_output=output, **setting)
        if "nms_iou" in setting
        else make_heads(predictor=setting, test_output=output)
    )
    candidates, (boxes, masks, scores) = joined_candidates(heads, make_ground_truth)
    if output == "boxes":
        boxes, scores = candidates[-1].class_boxes, candidates[-1].box_scores
    found = heads.merge(candidates, SIZES[0])
    defaults = {"test_score_thresh": 0.0, "nms_iou": 0.3, "test_topk_per_image": 100}
    for settings in (defaults, {**defaults, **setting}):
        [expected], [index] = fast_rcnn_inference([boxes], [scores], [SIZES[0]], *settings.values())
        assert torch.equal(found.scores, expected.scores) == (settings is not defaults)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    if output == "nms":
        assert torch.equal(found.pred_masks[:, 0], masks[index])


def test_scores_of_boxes_are_those_of_the_box_level_classifier(make_ground_truth):
    targets = make_targets(make_ground_truth)
    found = {}
    for output in ("voting", "nms", "boxes"):
        for layer in (None, "cls_score", "box_cls_score"):
            heads = make_heads(test_output=output, test_stages=3)
            if layer is not None:
                getattr(heads.predictor, layer).bias.data += torch.tensor([0.0, 2.0, 0.0, 0.0])
            found[output, layer] = infer(heads, targets)[0].scores
    for output in ("voting", "nms"):
        assert torch.equal(found[output, "box_cls_score"], found[output, None])
        assert not torch.equal(found[output, "cls_score"], found[output, None])
    assert torch.equal(found["boxes", "cls_score"], found["boxes", None])
    assert not torch.equal(found["boxes", "box_cls_score"], found["boxes", None])


def test_boxes_come_from_the_last_stages_of_every_model(make_ground_truth):
    heads = make_heads(test_output="boxes", nms_iou=1.0)
    models = [
        make_heads(test_stages=stages)
        .eval()
        .find_candidates(make_features(), make_proposals(make_targets(make_ground_truth)))[0]
        for stages in (3, 7)
    ]
    last = [model[-1] for model in models]
    found = heads.merge(sum(models, []), SIZES[0])
    expected = heads.merge(last, SIZES[0])
    assert torch.equal(found.scores, expected.scores) and len(found)
    assert not torch.equal(found.scores, heads.merge(last[1:], SIZES[0]).scores)


@pytest.mark.parametrize("nms_iou", [0.3, 0.45])
def test_an_nms_threshold_of_the_predictor_that_nothing_reads_is_refused(nms_iou):
    with pytest.raises(ValueError, match=r"test_nms_thresh=0.7 .* set nms_iou .*NMS_IOU"):
        make_heads(predictor={"test_nms_thresh": 0.7}, nms_iou=nms_iou)
    make_heads(predictor={"test_nms_thresh": 0.45}, nms_iou=0.45)
