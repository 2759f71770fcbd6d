"""Shapes as in modeling/mnc.py. The heads here see one map of stride 4."""

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks, pairwise_iou
from torch.nn import functional as F

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import (
    ImageMasks,
    MNCMaskHead,
    MNCOutputLayers,
    MNCROIHeads,
    ROIWarpPooler,
)
from hybrid_cascade.modeling.mnc import mask_voting
from hybrid_cascade.modeling.mnc.roi_heads import Candidates, mask_areas

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
    assert torch.autograd.gradcheck(losses, deltas, check_undefined_grad=False)
    for loss in losses(*deltas):
        for gradient in torch.autograd.grad(loss, deltas, retain_graph=True):
            assert gradient.abs().max() > 1e-6


def test_losses_of_stages_4_and_5_have_the_exact_derivative_by_the_deltas_of_the_bridge(
    storage, make_ground_truth, boxes_in_float64
):
    heads = make_heads(transform=ExactTransform, max_box_gradient=None).double()
    features, targets = make_features(torch.float64), make_targets(make_ground_truth)
    # Stage 3's deltas alone: those of stage 5 come from the same layer.
    bridge = heads._refine

    def losses(shift):
        def refine(boxes, predictions, image_sizes):
            scores, box_scores, deltas = predictions
            return bridge(boxes, (scores, box_scores, deltas + shift), image_sizes)

        heads._refine = refine
        found = train(heads, features, make_proposals(targets, torch.float64), targets)
        return tuple(
            found[k] for k in ("loss_mask_stage3", "loss_cls_stage4", "loss_box_cls_stage4")
        )

    shift = (0.05 * torch.randn(4 * CLASSES, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(losses, [shift], check_undefined_grad=False)
    for loss in losses(shift):
        assert torch.autograd.grad(loss, shift, retain_graph=True)[0].abs().max() > 1e-6


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


def test_ground_truth_without_masks_is_refused(storage, make_ground_truth):
    targets = make_targets(make_ground_truth)
    proposals = make_proposals(targets)
    for t in targets:
        t.remove("gt_masks")
    with pytest.raises(ValueError, match="use_instance_mask"):
        train(make_heads(), make_features(), proposals, targets)


@pytest.mark.parametrize("pathway_pool", [1, 2])
def test_predictions_see_the_masked_box_and_the_box_and_the_image(make_ground_truth, pathway_pool):
    """Every number of the input of the predictor, from what the paper says."""
    heads = make_heads(pathway_pool=pathway_pool, global_context=True)
    heads.masked_head = heads.box_head = heads.predictor = torch.nn.Identity()
    features = make_features()
    boxes = [p.proposal_boxes for p in make_proposals(make_targets(make_ground_truth))]
    logits, joined = heads._run_stages(features, boxes, SIZES)
    warped = heads.pooler([features["p2"]], boxes)
    torch.testing.assert_close(logits, heads.mask_head(warped))
    assert logits.std() > 0.5  # masks are neither empty nor full
    masks = F.interpolate(logits.sigmoid()[:, None], (6, 6), mode="bilinear")
    images = [Boxes(torch.tensor([[0.0, 0.0, width, height]])) for height, width in SIZES]
    context = heads.pooler([features["p2"]], images)
    context = context[[0] * len(boxes[0]) + [1] * len(boxes[1])]
    expected = torch.cat(
        [F.max_pool2d(f, pathway_pool).flatten(1) for f in (warped * masks, warped, context)], dim=1
    )
    torch.testing.assert_close(joined, expected)


def test_each_pathway_has_a_head_of_its_own(make_ground_truth):
    heads = make_heads(global_context=True)
    boxes = [p.proposal_boxes for p in make_proposals(make_targets(make_ground_truth))]
    heads.predictor = torch.nn.Identity()
    with torch.no_grad():
        for parameter in heads.masked_head.parameters():
            parameter.zero_()
        joined = heads._run_stages(make_features(), boxes, SIZES)[1]
    masked, box, context = joined.split(6, dim=1)
    assert masked.abs().max() == 0 and box.abs().max() > 0 and context.abs().max() > 0


def test_the_bridge_moves_boxes_by_the_best_class_that_is_not_background():
    heads = make_heads(max_box_gradient=None)
    boxes = torch.tensor([[8.0, 8.0, 28.0, 38.0], [50.0, 10.0, 70.0, 60.0]], requires_grad=True)
    scores = torch.tensor([[1.0, 2.0, 0.0, 9.0], [5.0, 4.0, 3.0, 0.0]])
    box_scores = torch.tensor([[9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0]])
    deltas = torch.zeros(2, CLASSES, 4)
    deltas[0, 1, 0] = 5.0  # half of the width; weights are 10
    deltas[1, 0, 0] = 10.0
    refined = heads._refine(
        [Boxes(boxes[:1]), Boxes(boxes[1:])],
        (scores, box_scores, deltas.flatten(1)),
        [(64, 80), (64, 80)],
    )
    assert refined[0].tensor.tolist() == [[18.0, 8.0, 38.0, 38.0]]
    assert refined[1].tensor.tolist() == [[70.0, 10.0, 80.0, 60.0]]  # clipped
    # Boxes move with those that they come from.
    [gradient] = torch.autograd.grad(refined[0].tensor[0, 1], boxes)
    assert gradient.tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0] * 4]


def test_ground_truth_joins_the_refined_boxes(storage, make_ground_truth):
    heads = make_heads()
    run, rounds = heads._run_stages, []

    def record(features, boxes, image_sizes):
        rounds.append([b.tensor for b in boxes])
        return run(features, boxes, image_sizes)

    heads._run_stages = record
    targets = make_targets(make_ground_truth)
    train(heads, make_features(), make_proposals(targets), targets)
    for first, second, target in zip(*rounds, targets, strict=True):
        assert len(second) == len(first) + len(target)
        assert torch.equal(second[len(first) :], target.gt_boxes.tensor)


def test_boxes_are_matched_to_the_ground_truth_that_they_overlap_most(make_ground_truth):
    [target] = [make_ground_truth(100, 100, [[0, 0, 40, 40], [50, 50, 100, 80]], [2, 1], True)]
    boxes = torch.tensor(
        [[50.0, 50.0, 100.0, 78.0], [0, 0, 40, 38], [0, 50, 40, 90], [0, 0, 40, 19]]
    )
    found = make_heads()._match(Boxes(boxes), target, mask_areas(target))
    assert found.gt_classes.tolist() == [1, 2, CLASSES, CLASSES]  # the last has an IoU of 0.475
    assert torch.equal(found.gt_boxes.tensor[:2], target.gt_boxes.tensor[[1, 0]])
    assert found.gt_areas[:2].tolist() == [0.75 * 50 * 30, 0.75 * 40 * 40]
    assert torch.equal(found.gt_masks.tensor[:2], target.gt_masks.tensor[[1, 0]])


def test_classifiers_of_instances_and_of_boxes_learn_different_positives(
    storage, make_ground_truth
):
    heads = make_heads(num_stages=3)
    # No mask has a pixel, so that no instance is positive, while boxes are.
    heads.mask_head.predictor.weight.data.zero_()
    heads.mask_head.predictor.bias.data.fill_(-20.0)
    predicted = []
    heads.predictor.register_forward_hook(lambda _layer, _input, output: predicted.append(output))
    targets = make_targets(make_ground_truth)
    losses = train(heads, make_features(), make_proposals(targets), targets)
    [(scores, box_scores, _)] = predicted
    background = torch.full((len(scores),), CLASSES)
    torch.testing.assert_close(losses["loss_cls_stage2"], F.cross_entropy(scores, background))
    wrong = F.cross_entropy(box_scores, background)
    assert (losses["loss_box_cls_stage2"] - wrong).abs() > 1e-3


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
    boxes = [heads._sample(p.proposal_boxes, t)[0] for p, t in zip(proposals, targets, strict=True)]
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


def test_masks_are_compared_at_their_threshold_with_the_iou_of_the_matcher(storage):
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, :20] = True
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 40.0, 40.0]] * 2)),
        gt_classes=torch.tensor([1, 1]),
        gt_masks=BitMasks(mask.expand(2, -1, -1)),
        gt_areas=torch.tensor([800.0, 800.0]),
    )
    logits = torch.full((2, 10, 10), -9.0)
    logits[0, :5] = -0.2  # a probability of 0.45
    logits[1, :9] = 9  # an IoU of 800 / 1440
    heads = make_heads()
    assert heads._mask_loss(logits, [instances])[1].tolist() == [1, 1]
    heads.mask_threshold = 0.5
    assert heads._mask_loss(logits, [instances])[1].tolist() == [CLASSES, 1]
    heads.proposal_matcher = Matcher([0.6], [0, 1], allow_low_quality_matches=False)
    assert heads._mask_loss(logits, [instances])[1].tolist() == [CLASSES, CLASSES]


def test_two_empty_masks_are_no_match(storage):
    instances = Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 40.0, 40.0]])),
        gt_classes=torch.tensor([1]),
        gt_masks=BitMasks(torch.zeros(1, 40, 40, dtype=torch.bool)),
        gt_areas=torch.zeros(1),
    )
    _, classes = make_heads()._mask_loss(torch.full((1, 10, 10), -9.0), [instances])
    assert classes.tolist() == [CLASSES]
    assert storage.latest()["mask_iou"][0] == 0


def test_boxes_are_sampled_in_the_fractions_of_the_paper(storage, make_ground_truth):
    heads = make_heads(batch_size_per_image=20)
    target = make_ground_truth(100, 100, [[10, 10, 50, 50]], [0], True)

    def sample(boxes, target=target):
        sampled, positives = heads._sample(Boxes(boxes), target)
        if len(target):
            assert positives == (pairwise_iou(target.gt_boxes, sampled) >= 0.5).sum()
        return sampled

    ones = torch.ones(30)

    def boxes(x2):  # IoU with the target: 40 / (x2 - 10)
        return torch.stack([10 * ones, 10 * ones, x2 * ones, 50 * ones], dim=1)

    far = torch.tensor([[60.0, 60.0, 90.0, 90.0]]).expand(30, 4)
    good, poor = boxes(60.0), boxes(98.0)  # 0.8, 0.45
    sampled = sample(torch.cat([good, poor, far]))
    ious = pairwise_iou(target.gt_boxes, sampled)[0]
    assert len(sampled) == 20
    assert [(ious >= 0.5).sum(), ((ious >= 0.1) & (ious < 0.5)).sum()] == [6, 10]
    heads.batch_size_per_image = 64  # of which 30 % are 19.2, and 20 % 12.8
    many = torch.cat([good, poor, poor, far])
    ious = pairwise_iou(target.gt_boxes, sample(many))[0]
    assert [(ious >= 0.5).sum(), (ious < 0.1).sum()] == [19, 13]
    heads.batch_size_per_image = 20
    # Which ones is random.
    many = torch.cat([boxes(x2 * ones) for x2 in (55.0, 60.0)])
    draws = [sample(many).tensor for _ in range(5)]
    assert not all(torch.equal(draws[0], draw) for draw in draws)
    # Without positives but the ground truth the others fill up; positives are never more.
    ious = pairwise_iou(target.gt_boxes, sample(torch.cat([poor, far])))[0]
    assert len(ious) == 20 and (ious >= 0.5).sum() == 1
    ious = pairwise_iou(target.gt_boxes, sample(good))[0]
    assert len(ious) == 6
    # An image without objects has far boxes only.
    nothing = make_ground_truth(100, 100, [], [], True)
    assert len(sample(good, nothing)) == 20
    heads.proposal_append_gt = False
    ious = pairwise_iou(target.gt_boxes, sample(far))[0]
    assert len(ious) == 20 and ious.max() == 0


def test_numbers_of_samples_are_means_over_the_images(storage, make_ground_truth):
    heads = make_heads(num_stages=3)
    targets = make_targets(make_ground_truth)
    targets[1] = make_ground_truth(*SIZES[1], [], [], True)
    proposals = make_proposals(make_targets(make_ground_truth))
    train(heads, make_features(), proposals, targets)
    # Of 16 RoIs 30 % are positive. The first image has 8 boxes and 2 of the ground truth, half of
    # which may be drawn; the second has 5, all negative.
    found = {k.rpartition("/")[2]: v for k, (v, _) in storage.latest().items()}
    torch.manual_seed(11)
    drawn = [
        heads._sample(Boxes(p.proposal_boxes.tensor), t)
        for p, t in zip(proposals, targets, strict=True)
    ]
    positives = [n for _, n in drawn]
    assert positives[0] > 0 == positives[1]
    assert found["num_fg_samples"] == sum(positives) / 2
    assert found["num_bg_samples"] == (sum(len(b) for b, _ in drawn) - sum(positives)) / 2


def test_the_fraction_of_positives_that_mnc_does_not_read_is_refused():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    shapes = {"p2": ShapeSpec(channels=CHANNELS, stride=4)}
    cfg.merge_from_list(["MODEL.ROI_HEADS.IN_FEATURES", ["p2"], "MODEL.ROI_BOX_HEAD.NUM_FC", 1])
    cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"])
    assert MNCROIHeads(cfg, shapes).sampling_fractions == [0.3, 0.5, 0.2]
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.4
    with pytest.raises(ValueError, match="POSITIVE_FRACTION 0.4 .*SAMPLING_FRACTIONS"):
        MNCROIHeads(cfg, shapes)
    cfg.MODEL.ROI_MNC_HEAD.SAMPLING_FRACTIONS = (0.4, 0.4, 0.2)
    assert MNCROIHeads(cfg, shapes).sampling_fractions == [0.4, 0.4, 0.2]


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
        assert (first.stage, second.stage) == (3, 5)
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
        arguments = {**settings, "topk": 7, "score_threshold": 0.2, **change}
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
    heads.end_to_end = True
    proposals = make_proposals(targets)
    boxes = [p.proposal_boxes.tensor for p in proposals]
    loss = train(heads, features, proposals, targets)["loss_mask_stage1"]
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(loss, boxes))


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
    boxes = [[8, 8, 40, 48], [0, 0, 64, 64]]
    polygons, bitmasks = (make_ground_truth(64, 64, boxes, [0, 1], b) for b in (False, True))
    assert isinstance(polygons.gt_masks, PolygonMasks) and isinstance(bitmasks.gt_masks, BitMasks)
    assert mask_areas(polygons).tolist() == [0.75 * 32 * 40, 0.75 * 64 * 64]
    assert mask_areas(bitmasks).tolist() == pytest.approx(mask_areas(polygons).tolist(), rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bitmasks", [True, False])
def test_masks_of_both_kinds_train_on_a_gpu(storage, make_ground_truth, bitmasks):
    targets = [t.to("cuda") for t in make_targets(make_ground_truth, bitmasks)]
    features = {"p2": make_features()["p2"].cuda()}
    losses = train(make_heads().cuda(), features, make_proposals(targets), targets)
    assert torch.isfinite(sum(losses.values()))


@pytest.mark.parametrize("global_context", [False, True])
def test_mixed_precision_trains_and_infers(storage, make_ground_truth, global_context):
    heads = make_heads(global_context=global_context)
    targets = make_targets(make_ground_truth)
    exact = train(heads, make_features(), make_proposals(targets), targets)
    proposals = make_proposals(targets)
    boxes = [p.proposal_boxes.tensor for p in proposals]
    with torch.autocast("cpu", torch.bfloat16):
        half = {k: v.bfloat16() for k, v in make_features().items()}
        losses = train(heads, half, proposals, targets)
        for name, loss in losses.items():
            assert loss.item() == pytest.approx(exact[name].item(), rel=0.5, abs=0.1)
        sum(losses.values()).backward()
        assert all(b.grad.abs().max() > 0 for b in boxes)
        with torch.no_grad():
            for output in ("voting", "nms", "boxes"):
                heads.test_output = output
                found = heads.eval()(None, half, make_proposals(targets))[0]
                assert all(len(f) and f.pred_boxes.tensor.dtype == torch.float32 for f in found)


def test_the_toy_model_trains_and_infers_in_mixed_precision(tiny_config, inputs, storage):
    config = tiny_config("mnc_toy")
    config.vis_period = 1  # draws the proposals
    model = instantiate(config)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(inputs)
        sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model.eval()([{k: v for k, v in x.items() if k != "instances"} for x in inputs])
    for output, x in zip(found, inputs, strict=True):
        masks = output["instances"].pred_masks
        assert len(masks) and masks.shape[1:] == (x["height"], x["width"])


def test_the_box_of_the_whole_image_is_exact_in_half_precision(make_ground_truth):
    """Multiples of 8 are all that bfloat16 knows above 1024."""
    heads = make_heads(global_context=True).eval()
    pool, asked = heads.pooler.forward, []
    heads.pooler.forward = lambda maps, boxes: asked.append(boxes) or pool(maps, boxes)
    proposals = make_proposals(make_targets(make_ground_truth))
    for p in proposals:
        p._image_size = (801, 1333)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        heads.find_candidates({"p2": make_features()["p2"].bfloat16()}, proposals)
    assert asked[1][0].tensor.tolist() == [[0, 0, 1333, 801]]


def test_class_agnostic_regression_of_many_classes(storage, make_ground_truth):
    heads = make_heads(predictor={"cls_agnostic_bbox_reg": True})
    targets = make_targets(make_ground_truth)
    train(heads, make_features(), make_proposals(targets), targets)
    assert len(infer(heads, targets)[0])
