"""What the stages of a cascade train on, where not all instances have masks."""

import copy

import pytest
import torch

from .toy_heads import htc, train


def mark(targets, *flags):
    """Return the targets with the flags of each image as "gt_has_mask", None for no such field."""
    targets = copy.deepcopy(targets)
    for target, flag in zip(targets, flags, strict=True):
        if flag is not None:
            target.gt_has_mask = torch.tensor(flag)
    return targets


@pytest.fixture(params=[True, False])
def heads(request):
    return htc(interleaved=request.param, resample_stages=request.param)


def recorded_mask_rois(heads, monkeypatch):
    """The classes of the RoIs that each call of the mask branch sees."""
    seen = []
    run = heads._mask_logits

    def record(features, boxes, classes, wanted):
        seen.append(classes)
        return run(features, boxes, classes, wanted)

    monkeypatch.setattr(heads, "_mask_logits", record)
    return seen


def test_instances_without_a_mask_train_boxes_and_classes_only(
    heads, features, proposals, targets, storage, monkeypatch
):
    expected = train(heads, features, proposals, targets)
    seen = recorded_mask_rois(heads, monkeypatch)
    # The second instance of the first image, of class 2, has no mask.
    losses = train(heads, features, proposals, mark(targets, [True, False], None))
    assert len(seen) == 3
    for classes in seen:
        assert set(classes.tolist()) == {0, 1}
    for name, loss in losses.items():
        assert torch.equal(loss, expected[name]) == ("mask" not in name), name


def test_what_stands_in_for_a_missing_mask_is_not_seen(
    heads, features, proposals, targets, storage
):
    losses = []
    for value in (False, True):
        marked = mark(targets, [True, False], None)
        masks = marked[0].gt_masks
        masks.polygons[1] = masks.polygons[0] if value else masks.polygons[1]
        losses.append(train(heads, features, proposals, marked))
    assert losses[0].keys() == losses[1].keys()
    for name, loss in losses[0].items():
        assert torch.equal(loss, losses[1][name]), name


def test_without_any_mask_the_mask_losses_are_0_and_all_parameters_have_gradients(
    heads, features, proposals, targets, storage
):
    losses = train(heads, features, proposals, mark(targets, [False, False], [False]))
    for name, loss in losses.items():
        assert loss.isfinite() and (loss == 0) == ("mask" in name), name
    sum(losses.values()).backward()
    assert [n for n, p in heads.named_parameters() if p.grad is None] == []
    assert any(p.grad.any() for p in heads.box_predictor.parameters())


def test_marks_that_are_all_true_change_nothing(heads, features, proposals, targets, storage):
    expected = train(heads, features, proposals, targets)
    losses = train(heads, features, proposals, mark(targets, [True, True], [True]))
    for name, loss in losses.items():
        assert torch.equal(loss, expected[name]), name
