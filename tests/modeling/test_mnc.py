"""Shapes as in modeling/mnc.py. The heads here see one map of stride 4."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, pairwise_iou
from torch.nn import functional as F

from hybrid_cascade.layers import ROIWarpPooler
from hybrid_cascade.modeling import ImageMasks, MNCMaskHead, MNCOutputLayers, MNCROIHeads
from hybrid_cascade.modeling.mnc import Candidates, mask_areas

CHANNELS, CLASSES, SIDE = 4, 3, 7
SIZES = [(64, 80), (56, 72)]


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


def make_heads(classes=CLASSES, transform=Box2BoxTransform, predictor=None, **arguments):
    torch.manual_seed(0)
    features = 3 * 6 if arguments.get("global_context") else 2 * 6
    shape = ShapeSpec(channels=CHANNELS, height=3, width=3)
    heads = MNCROIHeads(
        **{
            "num_classes": classes,
            "batch_size_per_image": 16,
            "proposal_matcher": Matcher([0.5], [0, 1], allow_low_quality_matches=False),
            "in_features": ["p2"],
            "pooler": ROIWarpPooler(12, [1 / 4], max_pool=2),
            "mask_head": MNCMaskHead(ShapeSpec(channels=CHANNELS, height=6, width=6), 8, SIDE),
            "masked_head": FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[6]),
            "box_head": FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[6]),
            "predictor": MNCOutputLayers(
                ShapeSpec(channels=features),
                box2box_transform=transform((10.0, 10.0, 5.0, 5.0)),
                num_classes=classes,
                **(predictor or {}),
            ),
            **arguments,
        }
    )
    generator = torch.Generator().manual_seed(3)
    for parameter in heads.parameters():
        scale = 2.0 / max(1, parameter[0].numel()) ** 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    return heads


def make_features(dtype=torch.float32, key="p2"):
    generator = torch.Generator().manual_seed(5)
    return {key: torch.randn(2, CHANNELS, 16, 20, generator=generator).to(dtype)}


def make_targets(make_ground_truth, bitmasks=True):
    return [
        make_ground_truth(*SIZES[0], [[8, 9, 50, 52], [30, 5, 77, 33]], [0, 2], bitmasks),
        make_ground_truth(*SIZES[1], [[11, 13, 44, 49]], [1], bitmasks),
    ]


def make_proposals(targets, dtype=torch.float32):
    """Boxes near the ground truth and elsewhere, whose coordinates have gradients."""
    generator = torch.Generator().manual_seed(7)
    proposals = []
    for target in targets:
        boxes = target.gt_boxes.tensor.to(dtype)
        near = boxes.repeat(3, 1)
        near = near + 6 * torch.rand(near.shape, generator=generator).to(dtype) - 3
        far = torch.tensor([[1.3, 2.1, 20.7, 17.9], [40.2, 30.3, 60.1, 50.7]], dtype=dtype)
        boxes = torch.cat([near, far]).requires_grad_()
        proposals.append(
            Instances(
                target.image_size,
                proposal_boxes=Boxes(boxes),
                objectness_logits=torch.zeros(len(boxes)),
            )
        )
    return proposals


def train(heads, features, proposals, targets):
    heads.train()
    torch.manual_seed(11)  # sampled boxes
    _, losses = heads(None, features, proposals, targets)
    return losses


def test_losses_of_stages_2_and_3_have_the_exact_derivative_by_the_deltas_of_the_rpn(
    storage, make_ground_truth, boxes_in_float64
):
    heads = make_heads(num_stages=3).double()
    features, targets = make_features(torch.float64), make_targets(make_ground_truth)
    anchors = [p.proposal_boxes.tensor.detach() for p in make_proposals(targets, torch.float64)]
    transform = ExactTransform((1.0, 1.0, 1.0, 1.0))

    def losses(*deltas):
        proposals = [
            Instances(t.image_size, proposal_boxes=Boxes(transform.apply_deltas(d, a)))
            for d, a, t in zip(deltas, anchors, targets, strict=True)
        ]
        # The targets of the box regression, which is left out, are constants of the training.
        found = train(heads, features, proposals, targets)
        return tuple(
            found[k] for k in ("loss_mask_stage1", "loss_cls_stage2", "loss_box_cls_stage2")
        )

    deltas = [(0.05 * torch.randn_like(a)).requires_grad_() for a in anchors]
    assert torch.autograd.gradcheck(losses, deltas)
    for loss in losses(*deltas):
        for gradient in torch.autograd.grad(loss, deltas, retain_graph=True):
            assert gradient.abs().max() > 1e-6


def test_losses_of_stages_4_and_5_have_the_exact_derivative_by_the_deltas_of_the_bridge(
    storage, make_ground_truth, boxes_in_float64
):
    heads = make_heads(transform=ExactTransform, max_box_gradient=None).double()
    features, targets = make_features(torch.float64), make_targets(make_ground_truth)
    proposals = make_proposals(targets, torch.float64)
    # Stage 3's deltas alone: those of stage 5 come from the same layer.
    bridge = heads._refine

    def losses(shift):
        def refine(boxes, predictions, image_sizes):
            scores, box_scores, deltas = predictions
            return bridge(boxes, (scores, box_scores, deltas + shift), image_sizes)

        heads._refine = refine
        found = train(heads, features, proposals, targets)
        return tuple(
            found[k] for k in ("loss_mask_stage3", "loss_cls_stage4", "loss_box_cls_stage4")
        )

    shift = (0.05 * torch.randn(4 * CLASSES, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(losses, [shift])
    for loss in losses(shift):
        assert torch.autograd.grad(loss, shift, retain_graph=True)[0].abs().max() > 1e-6


def test_gradients_of_the_bridge_are_limited(storage, make_ground_truth):
    def gradient(bound):
        heads = make_heads(max_box_gradient=bound)
        targets = make_targets(make_ground_truth)
        losses = train(heads, make_features(), make_proposals(targets), targets)
        # Stages 4 and 5 see bbox_pred only through the bridge, but for the loss of stage 5's boxes.
        loss = losses["loss_mask_stage3"] + losses["loss_cls_stage4"]
        return torch.autograd.grad(1000 * loss, heads.predictor.bbox_pred.bias)[0]

    free, limited = gradient(None), gradient(1e-4)
    assert free.abs().max() > 1
    assert 0 < limited.abs().max() <= 32 * 1e-4 / 2  # 32 RoIs of two images


def test_detached_boxes_change_no_loss_and_stop_the_gradients_through_boxes(
    storage, make_ground_truth
):
    features, targets = make_features(), make_targets(make_ground_truth)
    results = {}
    for end_to_end in (True, False):
        heads = make_heads(end_to_end=end_to_end)
        proposals = make_proposals(targets)
        losses = train(heads, features, proposals, targets)
        results[end_to_end] = {k: v.item() for k, v in losses.items()}
        boxes = [p.proposal_boxes.tensor for p in proposals]
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


def test_more_stages_add_losses_and_no_parameters(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    losses = {}
    for stages in (3, 5, 7):
        heads = make_heads(num_stages=stages)
        assert {n: p.shape for n, p in heads.named_parameters()} == {
            n: p.shape for n, p in make_heads().named_parameters()
        }
        losses[stages] = train(heads, make_features(), make_proposals(targets), targets)
    assert losses[3].keys() == {
        "loss_mask_stage1",
        "loss_cls_stage2",
        "loss_box_cls_stage2",
        "loss_box_reg_stage2",
    }
    assert len(losses[5]) == 8 and len(losses[7]) == 12
    for name, loss in losses[3].items():
        assert loss == losses[5][name] == losses[7][name]


def test_mask_loss_is_the_cross_entropy_of_positive_boxes(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    heads = make_heads(num_stages=3, mask_loss_weight=3.0)
    proposals = make_proposals(targets)
    loss = train(heads, make_features(), proposals, targets)["loss_mask_stage1"]
    maps = [make_features()["p2"]]
    torch.manual_seed(11)
    boxes = [heads._sample(p.proposal_boxes, t) for p, t in zip(proposals, targets, strict=True)]
    logits = heads.mask_head(heads.pooler(maps, boxes)).split([len(b) for b in boxes])
    terms = []
    for b, t, predicted in zip(boxes, targets, logits, strict=True):
        ious = pairwise_iou(b, t.gt_boxes)
        for i in (ious.amax(dim=1) >= 0.5).nonzero()[:, 0].tolist():
            best = t.gt_masks[ious[i].argmax().item()]
            mask = best.crop_and_resize(b.tensor[i : i + 1].detach(), SIDE).float()
            terms.append(F.binary_cross_entropy_with_logits(predicted[i : i + 1], mask))
    assert len(terms) > 3
    torch.testing.assert_close(loss, 3.0 * torch.stack(terms).mean())


def test_mask_level_positives_need_a_mask_that_fits_in_the_image(storage):
    """A mask right inside of its box may still lack too much of the object outside."""
    heads = make_heads()
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, :20, :40] = True  # 800 pixels
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(
            torch.tensor(
                [
                    [0.0, 0.0, 40.0, 40.0],
                    [0.0, 0.0, 40.0, 40.0],
                    [0.0, 0.0, 19.0, 20.0],
                    [0.0, 0.0, 21.0, 20.0],
                    [0.0, 0.0, 40.0, 40.0],
                ]
            )
        ),
        gt_classes=torch.tensor([1, 1, 1, 1, CLASSES]),
        gt_masks=BitMasks(mask.expand(5, -1, -1)),
        gt_areas=torch.full((5,), 800.0),
    )
    sides = torch.full((5, 10, 10), -9.0)
    sides[0, :5] = 9  # exact
    sides[1, :, :5] = 9  # half of it is wrong: 400 / 1200
    sides[2] = sides[3] = 9  # all of the box, 380 and 420 of 800 pixels
    sides[4, :5] = 9
    _, classes = heads._mask_loss(sides, [instances])
    assert classes.tolist() == [1, CLASSES, CLASSES, 1, CLASSES]


def test_boxes_are_sampled_in_the_fractions_of_the_paper(storage, make_ground_truth):
    heads = make_heads(batch_size_per_image=20)
    [target] = [make_ground_truth(100, 100, [[10, 10, 50, 50]], [0], True)]
    ones = torch.ones(30)

    def boxes(x2):  # IoU with the target: 40 / (x2 - 10)
        return torch.stack([10 * ones, 10 * ones, x2 * ones, 50 * ones], dim=1)

    far = torch.tensor([[60.0, 60.0, 90.0, 90.0]]).expand(30, 4)
    good, poor = boxes(60.0), boxes(98.0)  # 0.8, 0.45
    sampled = heads._sample(Boxes(torch.cat([good, poor, far])), target)
    ious = pairwise_iou(target.gt_boxes, sampled)[0]
    assert len(sampled) == 20
    assert [(ious >= 0.5).sum(), ((ious >= 0.1) & (ious < 0.5)).sum()] == [6, 10]
    # Without positives but the ground truth the others fill up; positives are never more.
    ious = pairwise_iou(target.gt_boxes, heads._sample(Boxes(torch.cat([poor, far])), target))[0]
    assert len(ious) == 20 and (ious >= 0.5).sum() == 1
    ious = pairwise_iou(target.gt_boxes, heads._sample(Boxes(good), target))[0]
    assert len(ious) == 6
    # An image without objects has far boxes only.
    nothing = make_ground_truth(100, 100, [], [], True)
    assert len(heads._sample(Boxes(good), nothing)) == 20
    heads.proposal_append_gt = False
    ious = pairwise_iou(target.gt_boxes, heads._sample(Boxes(far), target))[0]
    assert len(ious) == 20 and ious.max() == 0


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


def test_no_proposals_train_and_infer(storage, make_ground_truth):
    heads = make_heads()
    targets = [make_ground_truth(*size, [], [], True) for size in SIZES]
    empty = torch.zeros(0, 4, requires_grad=True)
    proposals = [Instances(size, proposal_boxes=Boxes(empty)) for size in SIZES]
    losses = train(heads, make_features(), proposals, targets)
    sum(losses.values()).backward()
    assert not [n for n, p in heads.named_parameters() if p.grad is None]
    heads.eval()
    for output in ("voting", "nms", "boxes"):
        heads.test_output = output
        found, _ = heads(None, make_features(), proposals)
        assert [len(f) for f in found] == [0, 0]


def infer(heads, targets):
    with torch.no_grad():
        return heads.eval()(None, make_features(), make_proposals(targets))[0]


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
        stage=3,
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


def test_global_context_adds_what_the_whole_image_shows(make_ground_truth):
    targets = make_targets(make_ground_truth)
    heads = make_heads(global_context=True).eval()
    features, proposals = make_features(), make_proposals(targets)
    with torch.no_grad():
        before = heads.find_candidates(features, proposals)
        features["p2"] = features["p2"].clone()
        features["p2"][0, :, 14:] += 9  # far from any box of the first image
        heads.test_stages = 3
        after = heads.find_candidates(features, proposals)
        far = before[0][0].boxes[:, 3] < 52
        assert far.sum() > 2
        assert not torch.allclose(before[0][0].scores[far], after[0][0].scores[far])
        assert torch.equal(before[0][0].masks[far], after[0][0].masks[far])
        assert torch.equal(before[1][0].scores, after[1][0].scores)


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


def test_one_class(storage, make_ground_truth):
    heads = make_heads(classes=1)
    targets = make_targets(make_ground_truth)
    for t in targets:
        t.gt_classes = torch.zeros_like(t.gt_classes)
    sum(train(heads, make_features(), make_proposals(targets), targets).values()).backward()
    assert (infer(heads, targets)[0].pred_classes == 0).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_stages": 4},
        {"num_stages": 1},
        {"test_stages": 7},
        {"test_stages": 4},
        {"test_output": "votes"},
        {"sampling_fractions": [0.3, 0.7]},
        {"sampling_fractions": [0.5, 0.5, 0.5]},
    ],
)
def test_contradicting_switches_are_refused(arguments):
    [name] = arguments
    with pytest.raises(ValueError, match=name):
        make_heads(**arguments)


def test_areas_of_polygons_and_bitmasks_agree(make_ground_truth):
    polygons = make_ground_truth(64, 64, [[8, 8, 40, 48], [0, 0, 64, 64]], [0, 1]).gt_masks
    assert isinstance(polygons, PolygonMasks)
    assert mask_areas(polygons).tolist() == [0.75 * 32 * 40, 0.75 * 64 * 64]
    assert mask_areas(BitMasks.from_polygon_masks(polygons, 64, 64)).tolist() == pytest.approx(
        mask_areas(polygons).tolist(), rel=0.05
    )


def test_class_agnostic_regression_of_many_classes(storage, make_ground_truth):
    heads = make_heads(predictor={"cls_agnostic_bbox_reg": True})
    targets = make_targets(make_ground_truth)
    train(heads, make_features(), make_proposals(targets), targets)
    assert len(infer(heads, targets)[0])
