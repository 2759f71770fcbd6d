import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image

from hybrid_cascade.layers import soft_nms
from hybrid_cascade.modeling.cascade import box_selection as module
from hybrid_cascade.modeling.cascade.box_selection import (
    candidates_above,
    nms_ending_early,
    suppress_softly,
)

SIZE = (100, 120)


def candidates(num_boxes=1500, num_classes=5, agnostic=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    columns = 1 if agnostic else num_classes
    corners = torch.rand(num_boxes, columns, 2, generator=generator) * 90 - 5
    sides = torch.rand(num_boxes, columns, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + sides], dim=2).flatten(1)
    return boxes, torch.rand(num_boxes, num_classes + 1, generator=generator).softmax(dim=1)


def assert_same_instances(ours, theirs):
    assert ours.image_size == theirs.image_size
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.pred_classes, theirs.pred_classes)


def assert_same_as_detectron2(boxes, scores, *thresholds):
    ours = nms_ending_early(boxes.clone(), scores, SIZE, *thresholds)
    theirs, _ = fast_rcnn_inference_single_image(boxes.clone(), scores, SIZE, *thresholds)
    assert_same_instances(ours, theirs)
    return ours


@pytest.fixture
def number_tried(monkeypatch):
    """The scores above which candidates were tried, in each call of Detectron2's function."""
    tried = []

    def recording(boxes, scores, *args):
        tried.append(int((scores[:, :-1] > args[1]).sum()))
        return fast_rcnn_inference_single_image(boxes, scores, *args)

    monkeypatch.setattr(module, "fast_rcnn_inference_single_image", recording)
    return tried


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("nms_thresh", [0.1, 0.5, 0.9])
def test_the_result_is_detectron2s_from_fewer_candidates(agnostic, nms_thresh, number_tried):
    boxes, scores = candidates(agnostic=agnostic)
    found = assert_same_as_detectron2(boxes, scores, 0.01, nms_thresh, 10)
    assert len(found) == 10 and number_tried == [1099]


def test_the_score_threshold_holds_and_nms_runs_once_where_few_are_above_it(number_tried):
    boxes, scores = candidates()
    threshold = float(scores[:, :-1].flatten().topk(300).values[-1])
    for topk in (10, 300):  # as many as asked for, and fewer
        number_tried.clear()
        found = assert_same_as_detectron2(boxes, scores, threshold, 0.1, topk)
        assert found.scores.min() > threshold and number_tried == [299]
    assert len(found) < 299


def test_where_the_best_candidates_suppress_one_another_all_are_tried(number_tried):
    boxes, scores = candidates()
    best = scores[:, 0].topk(1200).indices
    scores[best, 0] += 1  # of one class, ...
    boxes[best] = boxes[best[0]].clone()  # in one place
    found = assert_same_as_detectron2(boxes, scores, 0.01, 0.5, 10)
    assert len(found) == 10
    assert number_tried == [1099, int((scores[:, :-1] > 0.01).sum())]


@pytest.mark.parametrize("topk", [1, 50, 100])
def test_ious_near_the_threshold_are_rounded_as_in_the_nms_of_all(topk):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(600, 2, generator=generator) * 50
    sides = torch.rand(600, 1, generator=generator) * 40 + 1
    shift = torch.zeros(600, 2)
    shift[:, :1] = sides / 3  # the IoU of two squares is then 1/2
    boxes = torch.cat([torch.cat([x, x + sides], dim=1) for x in (low, low + shift)])
    scores = torch.rand(1200, 81, generator=generator).softmax(dim=1)
    assert_same_as_detectron2(boxes, scores, 0.001, 0.5, topk)


def test_of_equal_scores_any_may_be_first_but_the_scores_are_the_same():
    boxes, scores = candidates()
    scores = (scores * 20).round() / 20
    ours = nms_ending_early(boxes, scores, SIZE, 0.01, 0.99, 10)
    theirs, _ = fast_rcnn_inference_single_image(boxes, scores, SIZE, 0.01, 0.99, 10)
    assert torch.equal(ours.scores, theirs.scores)


@pytest.mark.parametrize("topk", [-1, 0, 7, 1000])
def test_any_number_of_boxes_can_be_asked_for(topk):
    assert_same_as_detectron2(*candidates(), 0.01, 0.5, topk)


@pytest.mark.parametrize("num_boxes", [0, 1])
def test_few_boxes(num_boxes):
    assert_same_as_detectron2(*candidates(num_boxes), 0.01, 0.5, 10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_boxes_and_scores_that_are_not_numbers_are_left_out(value):
    boxes, scores = candidates()
    boxes[3, 1] = scores[7, 2] = value
    assert_same_as_detectron2(boxes, scores, 0.01, 0.5, 10)


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("num_boxes", [0, 1, 100, 1500])
def test_candidates_are_all_pairs_of_boxes_and_classes_above_the_score(agnostic, num_boxes):
    boxes, scores = candidates(num_boxes, agnostic=agnostic)
    boxes[: num_boxes // 2] = boxes[:1].clone()  # which NMS would not leave
    found = candidates_above(boxes, scores, SIZE, 0.2)
    rows, classes = (scores[:, :-1] > 0.2).nonzero(as_tuple=True)
    expected = boxes.unflatten(1, (-1, 4))[rows, 0 if agnostic else classes]
    expected = expected.clamp(min=0).minimum(torch.tensor([120, 100, 120, 100]))
    assert found.scores.tolist() == sorted(scores[rows, classes].tolist(), reverse=True)
    rows_found = torch.column_stack([found.pred_boxes.tensor, found.scores, found.pred_classes])
    rows_expected = torch.column_stack([expected, scores[rows, classes], classes])
    assert sorted(rows_found.tolist()) == sorted(rows_expected.tolist())


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("topk", [-1, 0, 7, 100_000])
def test_soft_suppression_keeps_the_best_with_their_decayed_scores(method, topk):
    found = candidates_above(*candidates(300), SIZE, 0.2)
    scores_before = found.scores.clone()
    ours = suppress_softly(found, method, 0.4, 0.3, 0.1, topk)
    kept, scores = soft_nms(
        found.pred_boxes.tensor, found.scores, found.pred_classes, method, 0.4, 0.3, 0.1
    )
    assert 100 < len(kept) < len(found)
    kept, scores = (kept, scores) if topk < 0 else (kept[:topk], scores[:topk])
    expected = found[kept]
    expected.scores = scores
    assert_same_instances(ours, expected)
    assert torch.equal(found.scores, scores_before)
