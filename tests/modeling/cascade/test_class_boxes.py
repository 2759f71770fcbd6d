import pytest
import torch

from hybrid_cascade.modeling.cascade.class_boxes import boxes_of_classes, predicted_classes

from .toy_heads import CLASSES, detect, htc, liven_up, train


def test_rois_move_as_their_best_class_says_and_in_training_as_their_own():
    logits = torch.tensor([[1.0, 3, 2, 9], [4, 1, 2, -9], [0, 1, 2, 3]])
    assert predicted_classes(logits, None).tolist() == [1, 0, 2]
    gt_classes = torch.tensor([0, 3, 3])  # 3 is the background
    assert predicted_classes(logits, gt_classes).tolist() == [0, 0, 2]


def test_the_box_of_one_class_is_taken_for_each_roi():
    boxes = torch.arange(24.0).reshape(2, 12)
    assert boxes_of_classes(boxes, torch.tensor([2, 0])).tolist() == [
        [8, 9, 10, 11],
        [12, 13, 14, 15],
    ]
    assert boxes_of_classes(boxes[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 4)


def class_wise(heads, **switches):
    """Return heads that regress boxes for each class, each as `heads` do for all."""
    ours = liven_up(htc(class_wise=True, **switches))
    state = heads.state_dict()
    for name, value in state.items():
        if ".bbox_pred." in name:
            state[name] = value.repeat(CLASSES, *[1] * (value.dim() - 1))
    ours.load_state_dict(state)
    return ours


@pytest.mark.parametrize("resample_stages", [True, False])
def test_classes_that_move_boxes_alike_train_as_if_classes_were_not_told_apart(
    resample_stages, features, proposals, targets, storage
):
    agnostic = htc(resample_stages=resample_stages)
    expected = train(agnostic, features, proposals, targets)
    heads = class_wise(agnostic, resample_stages=resample_stages)
    losses = train(heads, features, proposals, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], msg=name)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


@pytest.mark.parametrize("soft_nms", ["none", "linear"])
@pytest.mark.parametrize("test_stages", [1, 3])
def test_classes_that_move_boxes_alike_detect_as_if_classes_were_not_told_apart(
    soft_nms, test_stages, features, proposals
):
    switches = {"soft_nms": soft_nms, "test_stages": test_stages}
    agnostic = htc(**switches)
    found = detect(class_wise(agnostic, **switches), features, proposals)
    for ours, theirs in zip(found, detect(agnostic, features, proposals), strict=True):
        assert len(ours) == len(theirs) > 0
        for field, value in theirs.get_fields().items():
            value, other = (getattr(v, "tensor", v) for v in (value, ours.get(field)))
            torch.testing.assert_close(other, value)


def test_each_class_moves_boxes_by_its_own_deltas(features, proposals):
    heads = htc(class_wise=True).eval()
    with torch.no_grad():
        for index, predictor in enumerate(heads.box_predictor):  # no class is the best of all RoIs
            logits = list(heads._run_box_stages(features, proposals))[index].predictions[0]
            predictor.cls_score.bias -= logits.mean(dim=0)
        stages = list(heads._run_box_stages(features, proposals))
        boxes, _ = heads.predict_boxes_and_scores(features, proposals)
    assert torch.equal(boxes[0], stages[-1].class_boxes[0]) and boxes[0].shape[1] == 4 * CLASSES
    for before, after in zip(stages, stages[1:], strict=False):
        best = before.predictions[0][:, :-1].argmax(dim=1)
        assert len(best.unique()) > 1
        every = torch.cat(list(before.class_boxes)).reshape(-1, CLASSES, 4)
        expected = torch.cat([every[i, c][None] for i, c in enumerate(best)])
        entered = torch.cat([p.proposal_boxes.tensor for p in after.proposals])
        inside = (expected >= 0).all(dim=1) & (expected[:, 2:] <= 80).all(dim=1)
        assert inside.any()
        assert torch.equal(entered[inside], expected[inside])  # others are clipped to the image
        assert not torch.equal(every[:, 0], every[:, 1])
