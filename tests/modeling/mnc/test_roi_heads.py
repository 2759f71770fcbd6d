import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import MNCROIHeads
from hybrid_cascade.modeling.mnc import roi_heads
from hybrid_cascade.modeling.mnc.gradient_clamp import BoxGradientClamp

from .small_heads import (
    CHANNELS,
    CLASSES,
    SIZES,
    infer,
    make_features,
    make_heads,
    make_proposals,
    make_targets,
    train,
)


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
        BoxGradientClamp(None, 2),
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


def test_instances_without_a_mask_train_proposals_boxes_and_box_level_classes(
    storage, make_ground_truth
):
    features = make_features()
    found = {}
    for marks in (None, True, False):
        heads, targets = make_heads(), make_targets(make_ground_truth)
        if marks is not None:
            for target in targets:
                target.gt_has_mask = torch.full((len(target),), marks)
        proposals = make_proposals(targets)
        losses = train(heads, features, proposals, targets)
        found[marks] = {name: loss.item() for name, loss in losses.items()}
        sum(losses.values()).backward()
        assert [n for n, p in heads.named_parameters() if p.grad is None] == []
        assert all(p.proposal_boxes.tensor.requires_grad is False for p in proposals)
    assert found[None] == found[True]
    for name, loss in found[False].items():
        assert (loss == 0) == ("mask" in name)
        assert (loss == found[True][name]) == ("box" in name), name


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


def test_losses_follow_the_switches_of_sampling_and_of_masks(
    storage, make_ground_truth, monkeypatch
):
    """The switches reach the functions that sampling and the masks' loss consist of."""
    switches = {
        "batch_size_per_image": 12,
        "sampling_ious": [0.6, 0.2],
        "sampling_fractions": [0.5, 0.25, 0.25],
        "mask_threshold": 0.7,
        "proposal_matcher": Matcher([0.55], [0, 1], allow_low_quality_matches=False),
    }
    calls = {}

    def record(name):
        function = getattr(roi_heads, name)

        def call(*args, **kwargs):
            calls[name] = args, kwargs
            return function(*args, **kwargs)

        monkeypatch.setattr(roi_heads, name, call)

    for name in ("draw_rois_of_images", "match_rois", "mask_loss"):
        record(name)
    targets = make_targets(make_ground_truth)
    train(make_heads(**switches), make_features(), make_proposals(targets), targets)
    assert calls["draw_rois_of_images"][0][2:] == (12, [0.6, 0.2], [0.5, 0.25, 0.25])
    assert calls["match_rois"][0][3:] == (switches["proposal_matcher"], CLASSES)
    expected = {"mask_threshold": 0.7, "iou_thresh": 0.55, "num_classes": CLASSES}
    assert calls["mask_loss"][1] == expected


@pytest.mark.parametrize("append", [True, False])
def test_ground_truth_is_drawn_only_where_it_is_asked_for(storage, make_ground_truth, append):
    heads = make_heads(num_stages=3, proposal_append_gt=append)
    targets = make_targets(make_ground_truth)
    proposals = make_proposals(targets)
    pool, asked = heads.pooler.forward, []
    heads.pooler.forward = lambda maps, boxes: asked.append(boxes) or pool(maps, boxes)
    train(heads, make_features(), proposals, targets)
    [boxes] = asked
    among = [
        (b.tensor[:, None] == t.gt_boxes.tensor).all(dim=2).any().item()
        for b, t in zip(boxes, targets, strict=True)
    ]
    assert any(among) is append


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
        {"test_stages": 1},
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


def test_class_agnostic_regression_of_many_classes(storage, make_ground_truth):
    heads = make_heads(predictor={"cls_agnostic_bbox_reg": True})
    targets = make_targets(make_ground_truth)
    train(heads, make_features(), make_proposals(targets), targets)
    assert len(infer(heads, targets)[0])
