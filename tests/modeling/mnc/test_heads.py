import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from hybrid_cascade.modeling import MNCMaskHead, MNCOutputLayers
from hybrid_cascade.modeling.mnc.mask_loss import UNKNOWN

CLASSES = 3


def make_layers(**arguments):
    return MNCOutputLayers(
        ShapeSpec(channels=5),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        num_classes=CLASSES,
        **arguments,
    )


def losses_of(layers):
    boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]]))
    proposals = Instances(
        (20, 20), proposal_boxes=boxes, gt_boxes=boxes, gt_classes=torch.tensor([1, CLASSES])
    )
    mask_classes = torch.tensor([CLASSES, CLASSES])
    scores, box_scores = torch.randn(2, CLASSES + 1), torch.randn(2, CLASSES + 1)
    deltas = torch.zeros(2, 4 * CLASSES)
    deltas[0, 4] = 0.5
    return (
        layers.losses((scores, box_scores, deltas), [proposals], mask_classes),
        scores,
        box_scores,
    )


@pytest.fixture(autouse=True)
def _storage(storage):
    return storage


def test_each_classifier_learns_its_classes():
    losses, scores, box_scores = losses_of(make_layers())
    assert losses.keys() == {"loss_cls", "loss_box_cls", "loss_box_reg"}
    for loss, logits, classes in (
        (losses["loss_cls"], scores, [CLASSES, CLASSES]),
        (losses["loss_box_cls"], box_scores, [1, CLASSES]),
    ):
        torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor(classes)))
    assert losses["loss_box_reg"].item() == 0.25  # a mean over all RoIs


def test_weights_of_losses_count():
    losses, scores, box_scores = losses_of(make_layers(loss_weight={"loss_cls": 3.0}))
    background = torch.tensor([CLASSES, CLASSES])
    torch.testing.assert_close(losses["loss_cls"], 3 * F.cross_entropy(scores, background))
    expected = 3 * F.cross_entropy(box_scores, torch.tensor([1, CLASSES]))
    torch.testing.assert_close(losses["loss_box_cls"], expected)


def test_sigmoids_can_replace_the_softmax():
    layers = make_layers(use_sigmoid_ce=True)
    losses, scores, _ = losses_of(layers)
    expected = F.binary_cross_entropy_with_logits(
        scores[:, :-1], torch.zeros(2, CLASSES), reduction="sum"
    )
    torch.testing.assert_close(losses["loss_cls"], expected / 2)


def test_the_mask_head_has_two_layers_with_a_relu_between():
    head = MNCMaskHead(ShapeSpec(channels=2, height=3, width=3), fc_dim=4, mask_side=5)
    x = torch.randn(6, 2, 3, 3)
    expected = head.predictor(head.fc(x.flatten(1)).clamp(min=0)).reshape(6, 5, 5)
    torch.testing.assert_close(head(x), expected)
    assert head(x[:0]).shape == (0, 5, 5)


@pytest.mark.parametrize("use_sigmoid_ce", [False, True])
def test_rois_of_unknown_mask_level_class_are_left_out_of_that_loss_only(use_sigmoid_ce):
    torch.manual_seed(0)
    layers = make_layers(use_sigmoid_ce=use_sigmoid_ce)
    proposals = Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0, 20, 20]]).repeat(3, 1)),
        gt_boxes=Boxes(torch.tensor([[0.0, 0, 22, 20]]).repeat(3, 1)),
        gt_classes=torch.tensor([0, 1, CLASSES]),
    )
    scores = torch.randn(3, CLASSES + 1, requires_grad=True)
    others = torch.randn(3, CLASSES + 1), torch.randn(3, 4 * CLASSES)

    def losses(rows, classes):
        predictions = [x[rows] for x in (scores, *others)]
        return layers.losses(predictions, [proposals[rows]], torch.tensor(classes))

    every, known = torch.tensor([True] * 3), torch.tensor([False, True, True])
    unknown = losses(every, [UNKNOWN, 1, CLASSES])
    all_known = losses(every, [0, 1, CLASSES])
    torch.testing.assert_close(unknown["loss_cls"], losses(known, [1, CLASSES])["loss_cls"])
    assert not torch.isclose(unknown["loss_cls"], all_known["loss_cls"])
    for name in ("loss_box_cls", "loss_box_reg"):
        assert torch.equal(unknown[name], all_known[name])
    loss = losses(every, [UNKNOWN] * 3)["loss_cls"]
    assert loss == 0 and not torch.autograd.grad(loss, scores)[0].any()
