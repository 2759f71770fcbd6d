import threading

import pytest
import torch
from detectron2.structures import Boxes, Instances

from hybrid_cascade import layers
from hybrid_cascade.modeling.cascade.mask_branch import mask_features

from .toy_heads import (
    CLASSES,
    FEATURES,
    SIZES,
    assert_equal_instances,
    boxes_of_htc,
    detect,
    htc,
)


def test_test_stages_stop_where_a_shorter_cascade_ends(features, proposals):
    long, short = htc(3), htc(2, stage_loss_weights=[1, 1])
    short.load_state_dict(long.state_dict(), strict=False)
    long.test_stages = 2
    assert_equal_instances(detect(long, features, proposals), detect(short, features, proposals))


def fields(instances):
    """The tensors of the instances of all images, by field name and number of the image."""
    return {
        (name, image): value.tensor if isinstance(value, Boxes) else value
        for image, of_image in enumerate(instances)
        for name, value in of_image.get_fields().items()
    }


def are_equal(ours, theirs):
    ours, theirs = fields(ours), fields(theirs)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("soft_nms", ["none", "linear"])
@pytest.mark.parametrize("test_stages", [1, 2, 3])
@torch.no_grad()
def test_a_call_for_fewer_stages_is_inference_with_that_setting_and_leaves_no_mark(
    test_stages, soft_nms, features, proposals
):
    roi_heads = htc(soft_nms=soft_nms).eval()
    # The thresholds are those of the last stage that runs.
    for stage, predictor in enumerate(roi_heads.box_predictor):
        predictor.test_score_thresh = [0.1, 0.05, 0.2][stage]
        predictor.test_nms_thresh = [0.5, 0.3, 0.6][stage]
        predictor.test_topk_per_image = [20, 30, 10][stage]
    before = dict(vars(roi_heads))
    found = roi_heads.detect(features, proposals, test_stages=test_stages)
    boxes = roi_heads.detect_boxes(features, proposals, test_stages=test_stages)
    assert vars(roi_heads) == before
    all_stages = roi_heads.detect(features, proposals)
    assert are_equal(all_stages, detect(roi_heads, features, proposals))
    roi_heads.test_stages = test_stages
    expected = detect(roi_heads, features, proposals)
    assert are_equal(found, expected)
    assert are_equal(roi_heads.detect(features, proposals), expected)
    assert are_equal(roi_heads.detect(features, proposals, test_stages=3), all_stages)
    assert are_equal(all_stages, expected) == (test_stages == 3)
    assert all(len(i) > 0 and i.has("pred_masks") for i in found)
    for i in expected:
        i.remove("pred_masks")
    assert are_equal(boxes, expected)


@pytest.mark.parametrize("test_stages", [0, 4])
def test_more_stages_than_there_are_cannot_be_asked_for(test_stages, features, proposals):
    roi_heads = htc().eval()
    with pytest.raises(ValueError, match=rf"test_stages={test_stages} is not in \[1, 3\]"):
        roi_heads.detect(features, proposals, test_stages=test_stages)


@pytest.mark.parametrize("soft_nms", ["linear", "gaussian"])
@torch.no_grad()
def test_without_soft_suppression_the_candidates_come_and_can_be_suppressed_later(
    soft_nms, features, proposals
):
    roi_heads = boxes_of_htc(soft_nms=soft_nms).eval()
    candidates = roi_heads.detect_boxes(features, proposals, soft_suppression=False)
    assert are_equal(candidates, detect(boxes_of_htc(test_nms_thresh=2.0), features, proposals))
    found = [roi_heads.suppress_softly(c) for c in candidates]
    assert not are_equal(candidates, found)
    assert are_equal(found, roi_heads.detect_boxes(features, proposals))


@torch.no_grad()
def test_nms_runs_whether_or_not_soft_suppression_is_asked_for(features, proposals):
    roi_heads = boxes_of_htc().eval()
    found = roi_heads.detect_boxes(features, proposals, soft_suppression=False)
    assert are_equal(found, roi_heads.detect_boxes(features, proposals))


def run_at_the_same_time(*calls, rounds=10):
    """Run each call in a thread of its own, all at once, `rounds` times; return all results."""
    results = [[] for _ in calls]
    barrier = threading.Barrier(len(calls))

    def work(call, collected):
        with torch.no_grad():
            for _ in range(rounds):
                barrier.wait(timeout=60)
                collected.append(call())

    threads = [threading.Thread(target=work, args=x) for x in zip(calls, results, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(of_call) for of_call in results] == [rounds] * len(calls)
    return results


def test_two_threads_detect_with_one_htc_what_one_after_the_other_detects(make_lively_rcnn):
    model = make_lively_rcnn("htc_toy", soft_nms="linear")
    inputs = [[{"image": torch.randint(0, 256, (3, 64, width)).byte()}] for width in (96, 80)]

    def call(x):
        return lambda: model.inference(x, do_postprocess=False)

    with torch.no_grad():
        expected = [call(x)() for x in inputs]
    assert not are_equal(*expected)
    results = run_at_the_same_time(*map(call, inputs), rounds=4)
    for of_call, once in zip(results, expected, strict=True):
        assert all(are_equal(found, once) for found in of_call)


def test_two_threads_may_ask_for_different_stages_and_suppression(features, proposals):
    roi_heads = htc(soft_nms="linear").eval()
    calls = [
        lambda: roi_heads.detect(features, proposals, test_stages=1),
        lambda: roi_heads.detect_boxes(features, proposals, soft_suppression=False),
    ]
    with torch.no_grad():
        expected = [call() for call in calls]
    for of_call, once in zip(run_at_the_same_time(*calls), expected, strict=True):
        assert all(are_equal(found, once) for found in of_call)


def mask_probabilities(roi_heads, features, boxes, classes):
    """Those of every stage, computed by the heads one by one, and those of the detections."""
    instances = Instances(SIZES[0], pred_boxes=Boxes(boxes), pred_classes=classes)
    first_image = {k: v[:1] for k, v in features.items()}
    heads, flows = roi_heads.mask_head, roi_heads.mask_information_flow
    with torch.no_grad():
        x = roi_heads.mask_pooler([first_image[f] for f in FEATURES], [instances.pred_boxes])
        probabilities = [
            head.predictor(head.deconv_relu(head.deconv(m))).sigmoid()[range(len(classes)), classes]
            for head, m in zip(heads, mask_features(heads, flows, x), strict=True)
        ]
        ours = roi_heads.eval().forward_with_given_boxes(first_image, [instances])[0].pred_masks
    return torch.stack(probabilities), ours[:, 0]


def test_mask_probabilities_are_averaged_over_the_stages_or_the_last(features):
    roi_heads = htc()
    boxes, classes = torch.tensor([[5.0, 5, 50, 60], [30, 20, 90, 90]]), torch.tensor([2, 0])
    per_stage, averaged = mask_probabilities(roi_heads, features, boxes, classes)
    torch.testing.assert_close(averaged, per_stage.mean(0))
    roi_heads.average_masks = False
    _, last = mask_probabilities(roi_heads, features, boxes, classes)
    torch.testing.assert_close(last, per_stage[-1])
    assert not torch.allclose(averaged, last)


def test_class_scores_are_averaged_over_the_stages_or_the_last(features, proposals):
    roi_heads = htc(masks=False).eval()
    with torch.no_grad():
        first_image = len(proposals[0])
        logits = [
            stage.predictions[0][:first_image]
            for stage in roi_heads._run_box_stages(features, proposals)
        ]
        per_stage = [stage_logits.softmax(1)[:, :CLASSES] for stage_logits in logits]
    best = detect(roi_heads, features, proposals)[0].scores[0]
    torch.testing.assert_close(best, torch.stack(per_stage).mean(0).max())
    roi_heads.average_logits = True
    best = detect(roi_heads, features, proposals)[0].scores[0]
    torch.testing.assert_close(best, torch.stack(logits).mean(0).softmax(1)[:, :CLASSES].max())
    roi_heads.average_logits = False
    roi_heads.average_scores = False
    best = detect(roi_heads, features, proposals)[0].scores[0]
    torch.testing.assert_close(best, per_stage[-1].max())


@pytest.mark.parametrize("soft_nms", ["linear", "gaussian"])
def test_soft_nms_decays_what_nms_would_drop(soft_nms, features, proposals):
    hard = detect(boxes_of_htc(), features, proposals)
    heads = boxes_of_htc(soft_nms=soft_nms, soft_nms_sigma=0.3, soft_nms_score_thresh=0.01)
    found = detect(heads, features, proposals)
    candidates = detect(boxes_of_htc(test_nms_thresh=2.0), features, proposals)
    for h, f, c in zip(hard, found, candidates, strict=True):
        assert len(h) < len(f) and f.scores.min() > 0.01
        kept, scores = layers.soft_nms(
            c.pred_boxes.tensor, c.scores, c.pred_classes, soft_nms, 0.5, 0.3, 0.01
        )
        assert torch.equal(f.scores, scores)
        assert torch.equal(f.pred_boxes.tensor, c.pred_boxes.tensor[kept])
        assert torch.equal(f.pred_classes, c.pred_classes[kept])
    for predictor in heads.box_predictor:
        predictor.test_topk_per_image = 3
    for f, best in zip(found, detect(heads, features, proposals), strict=True):
        assert torch.equal(best.scores, f.scores[:3])


def test_no_proposals_give_no_detections(features, proposals):
    for instances in detect(htc(), features, [p[:0] for p in proposals]):
        assert len(instances) == 0
        assert instances.pred_masks.shape == (0, 1, 28, 28)
