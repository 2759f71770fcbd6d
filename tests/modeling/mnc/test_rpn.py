import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead, build_proposal_generator
from detectron2.structures import Boxes, ImageList, Instances

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import RPNWithBoxGradients

SIZES = [(64, 96), (60, 80)]


def make_rpn(cls=RPNWithBoxGradients, **arguments):
    torch.manual_seed(0)
    rpn = cls(
        in_features=["p3", "p4"],
        head=StandardRPNHead(in_channels=8, num_anchors=3),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[16], [32]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8, 16], offset=0.0
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=16,
        positive_fraction=0.5,
        pre_nms_topk=(40, 30),
        post_nms_topk=(12, 10),
        nms_thresh=0.7,
        min_box_size=14,
        **arguments,
    )
    for parameter in rpn.parameters():
        parameter.data = torch.randn_like(parameter) * 0.05
    return rpn


def run(rpn):
    generator = torch.Generator().manual_seed(1)
    features = {
        "p3": torch.randn(2, 8, 8, 12, generator=generator),
        "p4": torch.randn(2, 8, 4, 6, generator=generator),
    }
    images = ImageList(torch.zeros(2, 3, 64, 96), SIZES)
    targets = [
        Instances(size, gt_boxes=Boxes(torch.tensor([[10.0, 10.0, 40.0, 44.0]]))) for size in SIZES
    ]
    torch.manual_seed(2)  # for the sampled anchors
    return rpn(images, features, targets)


@pytest.mark.parametrize("training", [True, False])
def test_proposals_and_losses_are_those_of_rpn(storage, training):
    proposals, losses = run(make_rpn().train(training))
    expected, expected_losses = run(make_rpn(RPN).train(training))
    for found, right in zip(proposals, expected, strict=True):
        assert torch.equal(found.proposal_boxes.tensor, right.proposal_boxes.tensor)
        assert torch.equal(found.objectness_logits, right.objectness_logits)
    assert losses == expected_losses
    assert all(p.proposal_boxes.tensor.requires_grad is training for p in proposals)
    assert not any(p.objectness_logits.requires_grad for p in proposals)


def test_losses_of_later_stages_reach_the_deltas_and_not_the_objectness(storage):
    rpn = make_rpn()
    proposals, _ = run(rpn)
    sum(p.proposal_boxes.tensor.sum() for p in proposals).backward()
    assert rpn.rpn_head.anchor_deltas.weight.grad.abs().max() > 0
    assert rpn.rpn_head.objectness_logits.weight.grad is None


def test_without_box_gradients_it_detaches_as_rpn_does(storage):
    proposals, _ = run(make_rpn(box_gradients=False))
    assert not any(p.proposal_boxes.tensor.requires_grad for p in proposals)


def test_only_gradients_from_later_stages_are_limited(storage):
    def gradient(bound, of_proposals):
        rpn = make_rpn(max_box_gradient=bound)
        proposals, losses = run(rpn)
        if of_proposals:
            # Two coordinates of a box sum up to at most 2 at its delta, and to none at others.
            sum(p.proposal_boxes.tensor[:1, 0].sum() for p in proposals).backward()
        else:
            losses["loss_rpn_loc"].backward()
        return rpn.rpn_head.anchor_deltas.bias.grad

    assert torch.equal(gradient(1e-6, False), gradient(None, False))
    free, limited = gradient(None, True), gradient(1e-3, True)
    assert free.abs().max() > 1
    # Two images with a proposal each, so two deltas of a kind at most, each with half of the bound.
    assert 0 < limited.abs().max() <= 1e-3 + 1e-9
    assert torch.equal(limited.sign(), free.sign())


def test_a_cfg_node_builds_it():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPNWithBoxGradients"
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    shape = {"res4": ShapeSpec(channels=8, stride=16)}
    rpn = build_proposal_generator(cfg, shape)
    assert rpn.box_gradients and rpn.max_box_gradient == 1 / 512
    cfg.MODEL.ROI_MNC_HEAD.END_TO_END = False
    cfg.MODEL.ROI_MNC_HEAD.MAX_BOX_GRADIENT = 0.0
    rpn = build_proposal_generator(cfg, shape)
    assert not rpn.box_gradients and rpn.max_box_gradient is None
