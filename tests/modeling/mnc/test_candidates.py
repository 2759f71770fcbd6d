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
        assert (first.num_stages, second.num_stages) == (3, 5)
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
        num_stages=3,
        boxes=torch.tensor([[10.0, 10.0, 30.0, 30.0]]),
        masks=torch.ones(1, SIDE, SIDE),
        scores=torch.tensor([[0.6, 0.1, 0.1, 0.2]]),
        class_boxes=torch.zeros(1, 12),
    )
    other = Candidates(3, one.boxes, torch.zeros(1, SIDE, SIDE), one.scores / 2, one.class_boxes)
    found = heads.merge([one, other], (40, 40))
    best = found[found.pred_classes == 0]
    # 2 / 3 of the votes are for all of the box.
    assert len(best) == 1 and best.scores.item() == pytest.approx(0.6)
    assert best.pred_masks.tensor.sum() == 400
    stronger = Candidates(3, one.boxes, other.masks, 3 * one.scores, one.class_boxes)
    found = heads.merge([one, stronger], (40, 40))
    assert not found.has("pred_masks") or not found.pred_masks.tensor.any()


SETTINGS = {"test_score_thresh": 0.2, "test_topk_per_image": 7, "test_nms_thresh": 0.7}


def joined_candidates(heads, make_ground_truth):
    with torch.no_grad():
        proposals = make_proposals(make_targets(make_ground_truth))
        candidates = heads.eval().find_candidates(make_features(), proposals)[0]
    fields = ("boxes", "masks", "scores", "class_boxes")
    return candidates, [torch.cat([getattr(c, f) for c in candidates]) for f in fields]


def test_voting_obeys_its_settings(make_ground_truth):
    settings = {"nms_iou": 0.6, "merge_iou": 0.8, "mask_threshold": 0.6}
    heads = make_heads(predictor=SETTINGS, **settings)
    candidates, (boxes, masks, scores, _) = joined_candidates(heads, make_ground_truth)
    found = heads.merge(candidates, SIZES[0])

    def vote(**change):
        arguments = {**settings, "topk": 7, "score_thresh": 0.2, **change}
        return mask_voting(boxes, masks, scores[:, :-1], SIZES[0], **arguments)

    def same(expected):
        return torch.equal(found.scores, expected.scores) and torch.equal(
            found.pred_masks.tensor, expected.pred_masks
        )

    assert len(found) and same(vote())
    for name, default in {"nms_iou": 0.3, "merge_iou": 0.5, "mask_threshold": 0.4}.items():
        assert not same(vote(**{name: default}))


@pytest.mark.parametrize("output", ["nms", "boxes"])
@pytest.mark.parametrize(
    "setting", [{"test_score_thresh": 0.8}, {"test_nms_thresh": 0.95}, {"test_topk_per_image": 2}]
)
def test_nms_obeys_the_settings_of_the_predictor(make_ground_truth, output, setting):
    heads = make_heads(predictor=setting, test_output=output)
    candidates, (boxes, masks, scores, _) = joined_candidates(heads, make_ground_truth)
    if output == "boxes":
        boxes, scores = candidates[-1].class_boxes, candidates[-1].scores
    found = heads.merge(candidates, SIZES[0])
    defaults = {"test_score_thresh": 0.0, "test_nms_thresh": 0.5, "test_topk_per_image": 100}
    for settings in (defaults, {**defaults, **setting}):
        [expected], [index] = fast_rcnn_inference([boxes], [scores], [SIZES[0]], *settings.values())
        assert torch.equal(found.scores, expected.scores) == (settings is not defaults)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    if output == "nms":
        assert torch.equal(found.pred_masks[:, 0], masks[index])
