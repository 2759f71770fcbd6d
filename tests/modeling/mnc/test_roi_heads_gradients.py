"""Gradients through the boxes, from stage to stage."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances, pairwise_iou

from .small_heads import (
    CHANNELS,
    CLASSES,
    SIZES,
    make_features,
    make_heads,
    make_proposals,
    make_targets,
    train,
)


class ExactTransform(Box2BoxTransform):
    """Detectron2's in the type of its input, where Detectron2 computes in float32."""

    def apply_deltas(self, deltas, boxes):
        low, high = boxes[:, :2], boxes[:, 2:]
        weights = deltas.new_tensor(self.weights)
        shift, scale = (deltas / weights).split(2, dim=1)
        center = (low + high) / 2 + shift * (high - low)
        size = (high - low) * scale.exp()
        return torch.cat([center - size / 2, center + size / 2], dim=1)


@pytest.fixture
def boxes_in_float64(monkeypatch):
    """Detectron2 rounds boxes to float32, in which no derivative can be checked."""

    def keep(self, tensor):
        self.tensor = tensor

    monkeypatch.setattr(Boxes, "__init__", keep)


class FixedTargets(ExactTransform):
    """Its targets stay what they were in the first forward pass, which calls it twice.

    Training takes them as constants, so numeric derivatives must not move them either.
    """

    def __init__(self, weights):
        super().__init__(weights)
        self.targets, self.calls = [], 0

    def get_deltas(self, boxes, targets):
        if self.calls < 2:
            self.targets.append(super().get_deltas(boxes, targets))
        self.calls += 1
        return self.targets[(self.calls - 1) % 2]


def test_every_later_loss_has_the_exact_derivative_by_the_deltas_of_the_rpn(
    storage, make_ground_truth, boxes_in_float64
):
    heads = make_heads(
        transform=FixedTargets, max_box_gradient=None, box_gradient_rois="all"
    ).double()
    features, targets = make_features(torch.float64), make_targets(make_ground_truth)
    anchors = [p.proposal_boxes.tensor.detach() for p in make_proposals(targets, torch.float64)]
    transform = ExactTransform((1.0, 1.0, 1.0, 1.0))

    def losses(*deltas):
        proposals = [
            Instances(t.image_size, proposal_boxes=Boxes(transform.apply_deltas(d, a)))
            for d, a, t in zip(deltas, anchors, targets, strict=True)
        ]
        return tuple(train(heads, features, proposals, targets).values())

    deltas = [(0.05 * torch.randn_like(a)).requires_grad_() for a in anchors]
    assert len(losses(*deltas)) == 8
    assert torch.autograd.gradcheck(losses, deltas, check_undefined_grad=False)
    for loss in losses(*deltas):
        for gradient in torch.autograd.grad(loss, deltas, retain_graph=True):
            assert gradient.abs().max() > 1e-6


def test_losses_of_stages_4_and_5_have_the_exact_derivative_by_the_deltas_of_the_bridge(
    storage, make_ground_truth, boxes_in_float64
):
    heads = make_heads(
        transform=ExactTransform, max_box_gradient=None, box_gradient_rois="all"
    ).double()
    features, targets = make_features(torch.float64), make_targets(make_ground_truth)
    # Stage 3's deltas alone: those of stage 5 come from the same layer.
    bridge = heads._refine

    def losses(shift):
        def refine(boxes, predictions, *arguments):
            scores, box_scores, deltas = predictions
            return bridge(boxes, (scores, box_scores, deltas + shift), *arguments)

        heads._refine = refine
        found = train(heads, features, make_proposals(targets, torch.float64), targets)
        return tuple(
            found[k] for k in ("loss_mask_stage3", "loss_cls_stage4", "loss_box_cls_stage4")
        )

    shift = (0.05 * torch.randn(4 * CLASSES, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(losses, [shift], check_undefined_grad=False)
    for loss in losses(shift):
        assert torch.autograd.grad(loss, shift, retain_graph=True)[0].abs().max() > 1e-6


def test_only_positive_rois_send_gradients_to_their_boxes(storage, make_ground_truth):
    features, targets = make_features(), make_targets(make_ground_truth)
    gradients = {}
    for rois in ("all", "positive"):
        heads = make_heads(num_stages=3, max_box_gradient=None, box_gradient_rois=rois)
        proposals = make_proposals(targets)
        boxes = [p.proposal_boxes.tensor for p in proposals]
        losses = train(heads, features, proposals, targets)
        gradients[rois] = [
            torch.autograd.grad(loss, boxes, retain_graph=True) for loss in losses.values()
        ]
    for of_all, of_positive in zip(gradients["all"], gradients["positive"], strict=True):
        for every, some, proposals_of_image, target in zip(
            of_all, of_positive, make_proposals(targets), targets, strict=True
        ):
            overlaps = pairwise_iou(proposals_of_image.proposal_boxes, target.gt_boxes)
            is_positive = overlaps.amax(dim=1) >= 0.5
            assert is_positive.any() and not is_positive.all()
            assert torch.equal(some[is_positive], every[is_positive])
            assert not some[~is_positive].any()
    # The mask loss has no gradient for background RoIs; the classification losses have.
    background = [g[0][-2:].abs().sum() > 0 for g in gradients["all"]]
    assert any(background) and not all(background)


def test_only_positive_rois_send_gradients_to_the_deltas_of_the_bridge(storage, make_ground_truth):
    features, targets = make_features(), make_targets(make_ground_truth)
    moved = {}
    for rois in ("all", "positive"):
        heads = make_heads(max_box_gradient=None, box_gradient_rois=rois)
        for parameter in heads.predictor.bbox_pred.parameters():
            parameter.data *= 0.05  # boxes near the ground truth stay there
        bridge, outputs = heads._refine, []

        def refine(*arguments, bridge=bridge, outputs=outputs):
            boxes = bridge(*arguments)
            for image_boxes in boxes:
                image_boxes.tensor.retain_grad()
            outputs.extend(boxes)
            return boxes

        heads._refine = refine
        losses = train(heads, features, make_proposals(targets), targets)
        (losses["loss_cls_stage4"] + losses["loss_mask_stage3"]).backward()
        moved[rois] = outputs
    for of_all, of_positive, target in zip(moved["all"], moved["positive"], targets, strict=True):
        is_positive = pairwise_iou(of_all, target.gt_boxes).amax(dim=1) >= 0.5
        assert is_positive.any() and not is_positive.all()
        assert torch.equal(of_positive.tensor.grad[is_positive], of_all.tensor.grad[is_positive])
        assert of_all.tensor.grad[~is_positive].any()
        assert not of_positive.tensor.grad[~is_positive].any()


def test_gradients_of_the_bridge_are_limited_as_the_losses_are_scaled(storage, make_ground_truth):
    def gradient(bound, scale=1):
        heads = make_heads(max_box_gradient=bound)
        targets = make_targets(make_ground_truth)
        losses = train(heads, make_features(), make_proposals(targets), targets)
        # Stages 4 and 5 see bbox_pred only through the bridge, but for the loss of stage 5's boxes.
        loss = losses["loss_mask_stage3"] + losses["loss_cls_stage4"]
        return torch.autograd.grad(scale * loss, heads.predictor.bbox_pred.bias)[0]

    free, limited = gradient(None), gradient(1e-6)
    assert free.abs().max() > 1e-3
    assert 0 < limited.abs().max() <= 32 * 1e-6 / 2  # 32 RoIs of two images
    # A GradScaler multiplies losses, and divides the gradients by the same.
    torch.testing.assert_close(gradient(1e-6, 2.0**14) / 2**14, limited, rtol=1e-3, atol=1e-9)


def test_detached_boxes_change_no_loss_and_stop_the_gradients_through_boxes(
    storage, make_ground_truth
):
    features, targets = make_features(), make_targets(make_ground_truth)
    results = {}
    for end_to_end in (True, False):
        heads = make_heads(end_to_end=end_to_end)
        proposals = make_proposals(targets)
        boxes = [p.proposal_boxes.tensor for p in proposals]
        losses = train(heads, features, proposals, targets)
        results[end_to_end] = {k: v.item() for k, v in losses.items()}
        early = losses["loss_mask_stage1"] + losses["loss_cls_stage2"]
        late = losses["loss_mask_stage3"] + losses["loss_cls_stage4"]
        by_boxes = torch.autograd.grad(early, boxes, retain_graph=True, allow_unused=True)
        [by_deltas] = torch.autograd.grad(
            late, [heads.predictor.bbox_pred.bias], retain_graph=True, allow_unused=True
        )
        for gradient in [*by_boxes, by_deltas]:
            assert (gradient is not None and bool(gradient.any())) is end_to_end
        # What does not flow through boxes is untouched.
        assert torch.autograd.grad(early, heads.mask_head.fc.weight)[0].abs().max() > 0
    assert results[True] == results[False]


def test_end_to_end_training_refuses_proposals_without_gradients(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    proposals = make_proposals(targets)
    for p in proposals:
        p.proposal_boxes = Boxes(p.proposal_boxes.tensor.detach())
    with pytest.raises(ValueError, match="RPNWithBoxGradients"):
        train(make_heads(), make_features(), proposals, targets)
    train(make_heads(end_to_end=False), make_features(), proposals, targets)
    with torch.no_grad():  # the losses of a validation set
        train(make_heads(), make_features(), proposals, targets)


def test_proposals_can_be_drawn_after_training(storage, make_ground_truth):
    """`GeneralizedRCNN.vis_period` turns them into arrays, which takes tensors without a graph."""
    targets = make_targets(make_ground_truth)
    proposals = make_proposals(targets)
    before = [p.proposal_boxes.tensor.detach().clone() for p in proposals]
    train(make_heads(), make_features(), proposals, targets)
    for p, boxes in zip(proposals, before, strict=True):
        assert (p.proposal_boxes.tensor.numpy() == boxes.numpy()).all()


@pytest.mark.parametrize("bitmasks", [True, False])
def test_every_parameter_gets_a_gradient_with_or_without_objects(
    storage, make_ground_truth, bitmasks
):
    nothing = [make_ground_truth(*size, [], [], bitmasks) for size in SIZES]
    some = make_targets(make_ground_truth, bitmasks)
    for targets in (some, nothing, [some[0], nothing[1]]):
        heads = make_heads()
        proposals = make_proposals(some)
        losses = train(heads, make_features(), proposals, targets)
        assert all(torch.isfinite(v) for v in losses.values())
        sum(losses.values()).backward()
        assert not [n for n, p in heads.named_parameters() if p.grad is None]


def test_stage_2_may_have_features_of_its_own(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    proposals = make_proposals(targets)
    heads = make_heads(num_stages=3, end_to_end=False, mask_in_features=["mask.p2"])
    features = {
        "p2": make_features()["p2"].requires_grad_(),
        "mask.p2": torch.randn(2, CHANNELS, 16, 20, requires_grad=True),
    }
    losses = train(heads, features, proposals, targets)
    by_maps = torch.autograd.grad(
        losses["loss_mask_stage1"], list(features.values()), allow_unused=True
    )
    assert by_maps[0] is None and by_maps[1].abs().max() > 0
    heads.end_to_end = True
    proposals = make_proposals(targets)
    boxes = [p.proposal_boxes.tensor for p in proposals]
    loss = train(heads, features, proposals, targets)["loss_mask_stage1"]
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, boxes))


def late_loss(heads, targets):
    """A loss that reaches `bbox_pred` through the bridge only."""
    losses = train(heads, make_features(), make_proposals(targets), targets)
    return losses["loss_mask_stage3"] + losses["loss_cls_stage4"]


def bridge_gradient(loss, heads, retain_graph=False):
    [gradient] = torch.autograd.grad(
        loss, heads.predictor.bbox_pred.bias, retain_graph=retain_graph
    )
    return gradient


def test_each_backward_pass_through_the_bridge_has_the_limit_of_its_own_scale(
    storage, make_ground_truth
):
    heads, targets = make_heads(max_box_gradient=1e-6), make_targets(make_ground_truth)
    expected = bridge_gradient(late_loss(heads, targets), heads)
    loss = late_loss(heads, targets)
    for scale in (2.0**14, 1.0, 2.0**-3):
        gradient = bridge_gradient(scale * loss, heads, retain_graph=True) / scale
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-10)


def test_limits_of_two_models_do_not_mix(storage, make_ground_truth):
    models = [make_heads(max_box_gradient=bound) for bound in (1e-6, 3e-6)]
    targets, scales = make_targets(make_ground_truth), (2.0**14, 1.0)
    expected = [bridge_gradient(late_loss(m, targets), m) for m in models]
    assert not torch.allclose(*expected)
    # Both forward passes before the backward passes, then both in one backward pass.
    losses = [s * late_loss(m, targets) for m, s in zip(models, scales, strict=True)]
    biases = [m.predictor.bbox_pred.bias for m in models]
    for gradients in (
        [bridge_gradient(x, m, retain_graph=True) for x, m in zip(losses, models, strict=True)],
        torch.autograd.grad(sum(losses), biases),
    ):
        for gradient, scale, right in zip(gradients, scales, expected, strict=True):
            torch.testing.assert_close(gradient / scale, right, rtol=1e-4, atol=1e-10)


def test_limits_of_the_rpn_follow_the_losses_of_the_roi_heads(storage, tiny_config, inputs):
    config = tiny_config("mnc_toy")
    config.roi_heads.max_box_gradient = 1e-7
    config.roi_heads.box_gradient_rois = "all"  # without training, no proposal is positive
    model = instantiate(config).train()
    weight = model.proposal_generator.rpn_head.anchor_deltas.weight

    def losses():
        torch.manual_seed(11)
        return [v for k, v in model(inputs).items() if "rpn" not in k]

    [expected] = torch.autograd.grad(sum(losses()), weight)
    assert expected.abs().max() > 0
    found = losses()
    for scale in (2.0**14, 1.0):
        [gradient] = torch.autograd.grad(scale * sum(found), weight, retain_graph=True)
        torch.testing.assert_close(gradient / scale, expected, rtol=1e-3, atol=1e-10)
    # Losses that are left out have no say, nor have those of the RPN.
    [gradient] = torch.autograd.grad(sum(found) + 0 * found[0], weight, retain_graph=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-10)
    config.roi_heads.max_box_gradient = None
    torch.manual_seed(0)
    free = instantiate(config).train()
    free.load_state_dict(model.state_dict())
    torch.manual_seed(11)
    loss = sum(v for k, v in free(inputs).items() if "rpn" not in k)
    [gradient] = torch.autograd.grad(loss, free.proposal_generator.rpn_head.anchor_deltas.weight)
    assert gradient.abs().max() > 100 * expected.abs().max()
