import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, Instances, pairwise_iou

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import HTCROIHeads

from .toy_heads import (
    AS_DETECTRON2,
    CHANNELS,
    CLASSES,
    OFF,
    SEMANTIC_POOLER,
    SIZES,
    assert_equal_instances,
    box_arguments,
    detect,
    htc,
    mask_arguments,
    mask_heads,
    train,
)


def copy_to_detectron2(roi_heads):
    """Detectron2's cascade with the weights of ours, which has one mask head."""
    theirs = CascadeROIHeads(**box_arguments(), **mask_arguments(), mask_head=mask_heads(1)[0])
    state = roi_heads.state_dict()
    theirs.load_state_dict({k.replace("mask_head.0.", "mask_head."): v for k, v in state.items()})
    return theirs


@pytest.mark.parametrize("mask_stages", ["first", "last"])
def test_with_switches_off_detects_what_detectron2_detects(mask_stages, features, proposals):
    ours = htc(num_mask_heads=1, mask_stages=mask_stages, **AS_DETECTRON2)
    theirs = copy_to_detectron2(ours)
    assert_equal_instances(detect(ours, features, proposals), detect(theirs, features, proposals))


@pytest.mark.parametrize("mask_stages", ["first", "last"])
def test_with_switches_off_box_losses_are_detectron2s(
    mask_stages, features, proposals, targets, storage
):
    ours = htc(num_mask_heads=1, mask_stages=mask_stages, **AS_DETECTRON2)
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
    ours = htc(num_mask_heads=1, mask_stages="first", **AS_DETECTRON2)
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
        for box_stage in run_box_stages(*args):
            outputs.append([b.detach() for b in box_stage.boxes])
            yield box_stage

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


@pytest.mark.parametrize("resampled", [True, False])
def test_resampled_stages_see_the_ground_truth_rather_than_what_it_was_refined_to(
    features, proposals, targets, storage, monkeypatch, resampled
):
    roi_heads = htc(resample_stages=resampled)
    roi_heads.batch_size_per_image, roi_heads.positive_fraction = 1000, 1.0
    seen = []
    run_stage = roi_heads._run_stage

    def record(maps, proposals, stage):
        seen.append(proposals)
        return run_stage(maps, proposals, stage)

    monkeypatch.setattr(roi_heads, "_run_stage", record)
    train(roi_heads, features, proposals, targets)
    for stage, rois in enumerate(seen):
        for before, rois_of_image, target in zip(proposals, rois, targets, strict=True):
            assert len(rois_of_image) == len(before) + len(target)
            equal = torch.cdist(target.gt_boxes.tensor, rois_of_image.proposal_boxes.tensor) == 0
            copies = equal.sum(dim=1).tolist()
            assert copies == [int(resampled or stage == 0)] * len(target)


def test_information_flow_changes_the_later_mask_losses_only(features, proposals, targets, storage):
    before_heads = htc(**OFF)
    after_heads = htc(**{**OFF, "mask_information_flow": True})
    after_heads.load_state_dict(before_heads.state_dict(), strict=False)
    before = train(before_heads, features, proposals, targets)
    after = train(after_heads, features, proposals, targets)
    assert changed_losses(before, after) == ALL_MASKS - {"loss_mask_stage0"}


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


def test_stage_loss_weights_of_none_are_1_and_change_no_gradient(
    features, proposals, targets, storage
):
    results = []
    for weights in (None, [1, 1, 1]):
        roi_heads = htc(stage_loss_weights=weights)
        leaf = features["p2"].clone().requires_grad_()
        losses = train(roi_heads, {**features, "p2": leaf}, proposals, targets)
        gradients = torch.autograd.grad(sum(losses.values()), [leaf, *roi_heads.parameters()])
        results.append([*losses.values(), *gradients])
    assert all(torch.equal(ours, ones) for ours, ones in zip(*results, strict=True))


def test_scaled_box_gradients_are_those_of_the_features_from_the_box_branch(
    features, proposals, targets, storage
):
    results = []
    for switch in (False, True):
        roi_heads = htc(scale_box_gradients=switch)
        leaf = features["p2"].clone().requires_grad_()
        losses = train(roi_heads, {**features, "p2": leaf}, proposals, targets)
        masks = sum(losses[name] for name in ALL_MASKS)
        boxes = sum(losses[name] for name in ALL_BOXES)
        (from_masks,) = torch.autograd.grad(masks, leaf, retain_graph=True)
        from_boxes, *of_heads = torch.autograd.grad(
            boxes, [leaf, *roi_heads.box_head.parameters(), *roi_heads.box_predictor.parameters()]
        )
        results.append((from_boxes, [*losses.values(), from_masks, *of_heads]))
    (full, others), (scaled, others_when_scaled) = results
    assert full.abs().max() > 0
    torch.testing.assert_close(scaled, full / 3)
    assert all(torch.equal(a, b) for a, b in zip(others, others_when_scaled, strict=True))


def test_gradients_weights_and_resampling_are_set_by_keys_of_yaml():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    shapes = {f"p{k}": ShapeSpec(channels=CHANNELS, stride=2**k) for k in range(2, 6)}
    cfg.MODEL.ROI_HEADS.IN_FEATURES = list(shapes)
    cfg.MODEL.ROI_BOX_HEAD.update(NAME="FastRCNNConvFCHead", NUM_FC=1, FC_DIM=16)
    heads = HTCROIHeads(cfg, shapes)
    assert heads.stage_loss_weights == (1.0, 0.5, 0.25) and not heads.scale_box_gradients
    cfg.MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS = ()
    cfg.MODEL.ROI_HTC_HEAD.SCALE_BOX_GRADIENTS = True
    assert not heads.resample_stages
    cfg.MODEL.ROI_HTC_HEAD.RESAMPLE_STAGES = True
    heads = HTCROIHeads(cfg, shapes)
    assert heads.stage_loss_weights == (1.0, 1.0, 1.0) and heads.scale_box_gradients
    assert heads.resample_stages


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_sampling_matches_at_the_threshold_of_the_stage_and_leaves_the_heads_alone(
    stage, proposals, targets, storage
):
    roi_heads = htc().train()
    roi_heads.batch_size_per_image, roi_heads.positive_fraction = 100, 1.0
    before = dict(vars(roi_heads))
    sampled = roi_heads.label_and_sample_proposals(proposals, targets, stage)
    assert vars(roi_heads) == before
    assert roi_heads.proposal_matcher is roi_heads.proposal_matchers[0]
    for image, target in zip(sampled, targets, strict=True):
        overlaps = pairwise_iou(target.gt_boxes, image.proposal_boxes).amax(dim=0)
        threshold = [0.5, 0.6, 0.7][stage]
        assert torch.equal(image.gt_classes < CLASSES, overlaps >= threshold)
        assert ((overlaps >= 0.5) & (overlaps < 0.7)).any()  # the thresholds differ


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
        ({"stage_loss_weights": [1, -1, 1]}, r"stage_loss_weights=\[1, -1, 1\] has weights"),
        ({"stage_loss_weights": [1, float("nan"), 1]}, "negative, infinite or NaN"),
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
