import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)
from detectron2.structures import Boxes, Instances

from hybrid_cascade import layers
from hybrid_cascade.modeling import HTCROIHeads

CHANNELS, CLASSES, FEATURES = 8, 3, ["p2", "p3", "p4", "p5"]
SIZES = [(96, 128), (80, 100)]


def box_arguments(stages=3, **predictor):
    weights = [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15), (30, 30, 15, 15)]
    return {
        "num_classes": CLASSES,
        "batch_size_per_image": 16,
        "positive_fraction": 0.5,
        "box_in_features": FEATURES,
        "box_pooler": ROIPooler(7, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2"),
        "box_heads": [
            FastRCNNConvFCHead(
                ShapeSpec(channels=CHANNELS, height=7, width=7), conv_dims=[], fc_dims=[16]
            )
            for _ in range(stages)
        ],
        "box_predictors": [
            FastRCNNOutputLayers(
                ShapeSpec(channels=16),
                box2box_transform=Box2BoxTransform(weights[t]),
                num_classes=CLASSES,
                cls_agnostic_bbox_reg=True,
                **predictor,
            )
            for t in range(stages)
        ],
        "proposal_matchers": [
            Matcher([iou], [0, 1], allow_low_quality_matches=False)
            for iou in [0.5, 0.6, 0.7, 0.7][:stages]
        ],
    }


def mask_arguments():
    return {
        "mask_in_features": FEATURES,
        "mask_pooler": ROIPooler(14, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 0, "ROIAlignV2"),
    }


def mask_heads(number):
    return [
        MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=CHANNELS, height=14, width=14),
            num_classes=CLASSES,
            conv_dims=[CHANNELS] * 3,
        )
        for _ in range(number)
    ]


def liven_up(module):
    """Weights large enough that boxes move, scores differ, and masks are not grey."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        scale = 2.0 / max(1, parameter[0].numel()) ** 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    for predictor in module.box_predictor:
        predictor.bbox_pred.weight.data *= 0.1
        predictor.bbox_pred.bias.data *= 0.1
    return module


def htc(stages=3, masks=True, num_mask_heads=None, **switches):
    heads = {}
    if masks:
        heads = {**mask_arguments(), "mask_heads": mask_heads(num_mask_heads or stages)}
    return liven_up(HTCROIHeads(**box_arguments(stages), **heads, **switches))


def boxes_of_htc(test_nms_thresh=0.5, **switches):
    heads = htc(masks=False, **switches)
    for predictor in heads.box_predictor:
        predictor.test_nms_thresh, predictor.test_topk_per_image = test_nms_thresh, -1
    return heads


OFF = {
    "interleaved": False,
    "mask_information_flow": False,
    "semantic_fusion": "none",
    "stage_loss_weights": None,
}
SEMANTIC_POOLER = ROIPooler(14, [1 / 8], 0, "ROIAlignV2")


@pytest.fixture
def features():
    maps = {f"p{k}": torch.randn(2, CHANNELS, 128 >> k, 128 >> k) for k in range(2, 6)}
    maps["semantic"] = torch.randn(2, CHANNELS, 16, 16)
    return maps


@pytest.fixture
def targets(make_ground_truth):
    return [
        make_ground_truth(*SIZES[0], [[10, 10, 50, 60], [60, 20, 120, 90]], [0, 2]),
        make_ground_truth(*SIZES[1], [[5, 30, 70, 75]], [1]),
    ]


@pytest.fixture
def proposals(targets):
    """The ground truth moved about, and some boxes anywhere."""
    result = []
    for size, target in zip(SIZES, targets, strict=True):
        near = target.gt_boxes.tensor.repeat(10, 1)
        near = near + torch.randn_like(near) * 5
        corner = torch.rand(10, 2) * 40
        boxes = Boxes(torch.cat([near, torch.cat([corner, corner + 30], dim=1)]))
        boxes.clip(size)
        logits = torch.zeros(len(boxes))
        result.append(Instances(size, proposal_boxes=boxes, objectness_logits=logits))
    return result


def train(roi_heads, features, proposals, targets):
    torch.manual_seed(1)
    _, losses = roi_heads.train()(None, features, copy.deepcopy(proposals), targets)
    return losses


def detect(roi_heads, features, proposals):
    with torch.no_grad():
        instances, _ = roi_heads.eval()(None, features, copy.deepcopy(proposals))
    return instances


def assert_equal_instances(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) == len(b) > 0
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_masks, b.pred_masks)
        assert torch.equal(a.pred_classes, b.pred_classes)


def copy_to_detectron2(roi_heads):
    """Detectron2's cascade with the weights of ours, which has one mask head."""
    theirs = CascadeROIHeads(**box_arguments(), **mask_arguments(), mask_head=mask_heads(1)[0])
    state = roi_heads.state_dict()
    theirs.load_state_dict({k.replace("mask_head.0.", "mask_head."): v for k, v in state.items()})
    return theirs


@pytest.mark.parametrize("mask_stages", ["first", "last"])
def test_with_switches_off_detects_what_detectron2_detects(mask_stages, features, proposals):
    ours = htc(num_mask_heads=1, mask_stages=mask_stages, **OFF)
    theirs = copy_to_detectron2(ours)
    assert_equal_instances(detect(ours, features, proposals), detect(theirs, features, proposals))


@pytest.mark.parametrize("mask_stages", ["first", "last"])
def test_with_switches_off_box_losses_are_detectron2s(
    mask_stages, features, proposals, targets, storage
):
    ours = htc(num_mask_heads=1, mask_stages=mask_stages, **OFF)
    our_losses = train(ours, features, proposals, targets)
    their_losses = train(copy_to_detectron2(ours), features, proposals, targets)
    their_mask_loss = their_losses.pop("loss_mask")
    our_mask_loss = our_losses.pop(
        "loss_mask_stage0" if mask_stages == "first" else "loss_mask_stage2"
    )
    assert our_losses.keys() == their_losses.keys()
    for name, loss in our_losses.items():
        torch.testing.assert_close(loss, their_losses[name])
    # Detectron2 trains its only mask head on the proposals, that is on what enters the first stage.
    assert torch.isclose(our_mask_loss, their_mask_loss) == (mask_stages == "first")


def test_with_switches_off_gradients_are_detectron2s(features, proposals, targets, storage):
    ours = htc(num_mask_heads=1, mask_stages="first", **OFF)
    gradients = []
    for roi_heads in (ours, copy_to_detectron2(ours)):
        leaf = features["p2"].clone().requires_grad_()
        losses = train(roi_heads, {**features, "p2": leaf}, proposals, targets)
        gradients.append(torch.autograd.grad(sum(losses.values()), leaf)[0])
    torch.testing.assert_close(*gradients)


def changed_losses(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not torch.isclose(before[name], after[name], rtol=1e-6)}


ALL_MASKS = {"loss_mask_stage0", "loss_mask_stage1", "loss_mask_stage2"}
ALL_BOXES = {f"loss_{k}_stage{t}" for k in ("cls", "box_reg") for t in range(3)}


def test_interleaving_changes_the_mask_losses_only(features, proposals, targets, storage):
    before = train(htc(**OFF), features, proposals, targets)
    after = train(htc(**{**OFF, "interleaved": True}), features, proposals, targets)
    assert changed_losses(before, after) == ALL_MASKS


def test_interleaved_masks_train_on_boxes_of_their_own_stage(
    features, proposals, targets, storage, monkeypatch
):
    roi_heads = htc(**{**OFF, "interleaved": True}).train()
    outputs, seen = [], []
    run_box_stages = roi_heads._run_box_stages

    def recording_stages(*args):
        for predictor, predictions, inputs, boxes in run_box_stages(*args):
            outputs.append([b.detach() for b in boxes])
            yield predictor, predictions, inputs, boxes

    def recording_loss(_, proposals, stage):
        seen.append((stage, proposals))
        return torch.zeros(())

    monkeypatch.setattr(roi_heads, "_run_box_stages", recording_stages)
    monkeypatch.setattr(roi_heads, "_mask_loss", recording_loss)
    train(roi_heads, features, proposals, targets)
    assert [stage for stage, _ in seen] == [0, 1, 2]
    for stage, stage_proposals in seen:
        for refined, sampled, target in zip(outputs[stage], stage_proposals, targets, strict=True):
            allowed = Boxes(refined)
            allowed.clip(sampled.image_size)
            allowed = torch.cat([allowed.tensor, target.gt_boxes.tensor])
            distance = (sampled.proposal_boxes.tensor[:, None] - allowed).abs().amax(-1).amin(1)
            assert distance.max() < 1e-4
            # Matched again, at the IoU threshold of the stage.
            overlaps = roi_heads.proposal_matchers[stage].thresholds[1]
            foreground = sampled[sampled.gt_classes < CLASSES]
            for box, matched in zip(foreground.proposal_boxes, foreground.gt_boxes, strict=True):
                lt, rb = torch.max(box[:2], matched[:2]), torch.min(box[2:], matched[2:])
                intersection = (rb - lt).clamp(min=0).prod()
                union = (box[2:] - box[:2]).prod() + (matched[2:] - matched[:2]).prod()
                assert intersection / (union - intersection) >= overlaps - 1e-4


def test_information_flow_changes_the_later_mask_losses_only(features, proposals, targets, storage):
    before_heads = htc(**OFF)
    after_heads = htc(**{**OFF, "mask_information_flow": True})
    after_heads.load_state_dict(before_heads.state_dict(), strict=False)
    before = train(before_heads, features, proposals, targets)
    after = train(after_heads, features, proposals, targets)
    assert changed_losses(before, after) == ALL_MASKS - {"loss_mask_stage0"}


def test_information_flow_follows_equation_4(features, proposals):
    roi_heads = htc().eval()
    x = torch.randn(5, CHANNELS, 14, 14)
    with torch.no_grad():
        m = None
        for t, (head, ours) in enumerate(
            zip(roi_heads.mask_head, roi_heads._mask_features(x, 3), strict=True)
        ):
            if t == 0:
                m = x
            else:
                flow = roi_heads.mask_information_flow[t - 1]
                m = x + torch.relu(torch.nn.functional.conv2d(m, flow.weight, flow.bias))
            for conv in (head.mask_fcn1, head.mask_fcn2):
                m = torch.relu(torch.nn.functional.conv2d(m, conv.weight, conv.bias, padding=1))
            torch.testing.assert_close(ours, m)


def test_gradients_flow_through_the_masks_of_earlier_stages(features, proposals, targets, storage):
    roi_heads = htc()
    losses = train(roi_heads, features, proposals, targets)
    losses["loss_mask_stage2"].backward()
    assert roi_heads.mask_head[0].mask_fcn1.weight.grad.abs().sum() > 0
    assert roi_heads.mask_head[0].predictor.weight.grad is None


@pytest.mark.parametrize(
    "fusion, expected", [("box", ALL_BOXES), ("mask", ALL_MASKS), ("both", ALL_BOXES | ALL_MASKS)]
)
def test_semantic_fusion_changes_the_losses_of_its_branches_only(
    fusion, expected, features, proposals, targets, storage
):
    before = htc(**OFF)
    after = htc(**{**OFF, "semantic_fusion": fusion}, semantic_pooler=SEMANTIC_POOLER)
    changed = changed_losses(
        train(before, features, proposals, targets), train(after, features, proposals, targets)
    )
    if fusion == "box":
        # The first stage's mask branch sees the same proposals; later ones see moved boxes.
        changed -= {"loss_mask_stage1", "loss_mask_stage2"}
    assert changed == expected


def test_semantic_fusion_of_a_zero_map_changes_nothing(features, proposals):
    plain, fused = htc(), htc(semantic_fusion="both", semantic_pooler=SEMANTIC_POOLER)
    features["semantic"].zero_()
    assert_equal_instances(detect(fused, features, proposals), detect(plain, features, proposals))


def test_stage_loss_weights_scale_the_losses_of_their_stage(features, proposals, targets, storage):
    ones = train(htc(stage_loss_weights=[1, 1, 1]), features, proposals, targets)
    weighted = train(htc(stage_loss_weights=[1, 0.5, 0.25]), features, proposals, targets)
    for name, loss in weighted.items():
        stage = int(name[-1])
        torch.testing.assert_close(loss, ones[name] * [1, 0.5, 0.25][stage])


@pytest.mark.parametrize("mask_stages, stages", [("first", {0}), ("last", {2}), ("all", {0, 1, 2})])
def test_masks_train_at_the_stages_asked_for(
    mask_stages, stages, features, proposals, targets, storage
):
    roi_heads = htc(num_mask_heads=len(stages), mask_stages=mask_stages)
    losses = train(roi_heads, features, proposals, targets)
    assert {name for name in losses if "mask" in name} == {f"loss_mask_stage{t}" for t in stages}


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("masks", [True, False])
def test_any_number_of_stages_trains_and_detects(
    stages, masks, features, proposals, targets, storage
):
    roi_heads = htc(stages, masks, stage_loss_weights=[1.0] * stages)
    losses = train(roi_heads, features, proposals, targets)
    kinds = 3 if masks else 2
    assert len(losses) == kinds * stages
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in roi_heads.parameters())
    instances = detect(roi_heads, features, proposals)
    assert all(len(i) > 0 and i.has("pred_masks") == masks for i in instances)


def test_test_stages_stop_where_a_shorter_cascade_ends(features, proposals):
    long, short = htc(3), htc(2, stage_loss_weights=[1, 1])
    short.load_state_dict(long.state_dict(), strict=False)
    long.test_stages = 2
    assert_equal_instances(detect(long, features, proposals), detect(short, features, proposals))


def mask_probabilities(roi_heads, features, boxes, classes):
    """Those of every stage, computed by the heads one by one."""
    instances = Instances(SIZES[0], pred_boxes=Boxes(boxes), pred_classes=classes)
    first_image = {k: v[:1] for k, v in features.items()}
    with torch.no_grad():
        x = roi_heads.mask_pooler([first_image[f] for f in FEATURES], [instances.pred_boxes])
        probabilities = [
            head.predictor(head.deconv_relu(head.deconv(m))).sigmoid()[range(len(classes)), classes]
            for head, m in zip(roi_heads.mask_head, roi_heads._mask_features(x, 3), strict=True)
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
            predictions[0][:first_image]
            for _, predictions, _, _ in roi_heads._run_box_stages(features, proposals)
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


def empty_target(size):
    return Instances(
        size, gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.long)
    )


@pytest.mark.parametrize("case", ["no targets", "no proposals", "neither", "one image empty"])
@pytest.mark.parametrize("interleaved", [True, False])
def test_every_parameter_gets_a_gradient_without_foreground(
    case, interleaved, features, proposals, targets, storage
):
    if case in ("no targets", "neither"):
        targets = [empty_target(size) for size in SIZES]
    if case in ("no proposals", "neither"):
        proposals = [p[:0] for p in proposals]
    if case == "one image empty":
        targets[0] = empty_target(SIZES[0])
    roi_heads = htc(
        interleaved=interleaved, semantic_fusion="both", semantic_pooler=SEMANTIC_POOLER
    )
    leaf = features["semantic"].requires_grad_()
    losses = train(roi_heads, features, proposals, targets)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    without = [name for name, p in roi_heads.named_parameters() if p.grad is None]
    assert without == []
    assert leaf.grad is not None


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


def test_boxes_of_zero_area_are_ordinary_proposals(features, proposals, targets, storage):
    for p in proposals:
        p.proposal_boxes.tensor[0] = torch.tensor([20.0, 20, 20, 20])
    roi_heads = htc()
    assert torch.isfinite(sum(train(roi_heads, features, proposals, targets).values()))
    assert all(torch.isfinite(i.scores).all() for i in detect(roi_heads, features, proposals))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"semantic_fusion": "boxes"}, "semantic_fusion='boxes'"),
        ({"semantic_fusion": "box"}, "needs a semantic_pooler"),
        ({"mask_stages": "second"}, "mask_stages='second'"),
        ({"mask_stages": "last"}, "needs 1 mask heads, not 3"),
        ({"stage_loss_weights": [1, 1]}, "2 weights for 3 stages"),
        ({"average_logits": True, "average_scores": False}, "contradicts average_scores=False"),
        ({"test_stages": 4}, r"test_stages=4 is not in \[1, 3\]"),
        ({"soft_nms": "hard"}, "soft_nms='hard'"),
        ({"soft_nms_sigma": 0}, "soft_nms_sigma=0"),
        ({"soft_nms_score_thresh": -1}, "soft_nms_score_thresh=-1"),
    ],
)
def test_contradicting_switches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        htc(**arguments)


class Constant(MaskRCNNConvUpsampleHead):
    def layers(self, x):
        return super().layers(x) * 0 + 7


def test_a_mask_head_with_layers_of_its_own_is_called(features):
    heads = mask_heads(1)
    own = Constant(
        ShapeSpec(channels=CHANNELS, height=14, width=14), num_classes=CLASSES, conv_dims=[CHANNELS]
    )
    found = Instances(SIZES[0], pred_boxes=Boxes(torch.tensor([[5.0, 5, 50, 60]])))
    found.pred_classes = torch.tensor([1])
    for head, all_seven in ((own, True), (*heads, False)):
        roi_heads = liven_up(
            HTCROIHeads(
                **box_arguments(),
                **mask_arguments(),
                mask_heads=[head],
                mask_stages="last",
                **OFF,
            )
        ).eval()
        maps = {name: m[:1] for name, m in features.items()}
        (instances,) = roi_heads.forward_with_given_boxes(maps, [found])
        assert (instances.pred_masks == torch.tensor(7.0).sigmoid()).all() == all_seven
