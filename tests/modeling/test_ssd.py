import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from torch import nn
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.models.detection.image_list import ImageList

from hybrid_cascade.modeling import SSD, DefaultBoxes

NUM_CLASSES, CHANNELS = 5, 16
MEAN, STD = [123.0, 117.0, 104.0], [58.0, 57.0, 56.0]


class TinyBackbone(Backbone):
    """Two maps of strides 8 and 16."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, CHANNELS, 9, stride=8, padding=4)
        self.coarse = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)

    def output_shape(self):
        return {"fine": ShapeSpec(CHANNELS, stride=8), "coarse": ShapeSpec(CHANNELS, stride=16)}

    def forward(self, x):
        fine = self.fine(x).relu()
        return {"fine": fine, "coarse": self.coarse(fine).relu()}


def default_boxes():
    return DefaultBoxes([[2], [2, 3]], scales=[0.2, 0.5, 0.8])


def tiny_ssd(**kwargs):
    args = dict(
        backbone=TinyBackbone(),
        anchor_generator=default_boxes(),
        image_size=64,
        num_classes=NUM_CLASSES,
        pixel_mean=MEAN,
        pixel_std=STD,
    )
    return SSD(**{**args, **kwargs})


@pytest.fixture
def model():
    return tiny_ssd()


def image(height, width, boxes=(), classes=()):
    instances = Instances(
        (height, width),
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.long),
    )
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return {"image": pixels, "height": height, "width": width, "instances": instances}


def two_images():
    boxes = [[10.0, 10.0, 60.0, 70.0], [50.0, 30.0, 120.0, 90.0]]
    return [image(97, 131, boxes, [1, 4]), image(128, 96, [[20.0, 40.0, 80.0, 100.0]], [0])]


def torchvision_model(model):
    """torchvision's own SSD with the same weights, for images of values 0 to 1."""
    mean, std = ([v / 255 for v in values] for values in (MEAN, STD))
    theirs = torchvision_ssd.SSD(
        model.backbone,
        model.anchor_generator,
        (64, 64),
        NUM_CLASSES + 1,
        image_mean=mean,
        image_std=std,
        head=model.head,
    )
    return theirs.train(model.training)


def test_losses_are_those_of_torchvision(model):
    inputs = two_images()
    images = [x["image"] / 255 for x in inputs]
    targets = [
        {"boxes": x["instances"].gt_boxes.tensor, "labels": x["instances"].gt_classes + 1}
        for x in inputs
    ]
    expected = torchvision_model(model)(images, targets)
    losses = model(inputs)
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    torch.testing.assert_close(losses["loss_cls"], expected["classification"])
    torch.testing.assert_close(losses["loss_box_reg"], expected["bbox_regression"])
    assert losses["loss_cls"] > 0 and losses["loss_box_reg"] > 0


def test_detections_are_those_of_torchvision_with_classes_from_zero(model):
    model.eval()
    inputs = two_images()
    with torch.no_grad():
        expected = torchvision_model(model)([x["image"] / 255 for x in inputs])
        outputs = model(inputs)
    for x, found, theirs in zip(inputs, outputs, expected, strict=True):
        found = found["instances"]
        assert found.image_size == (x["height"], x["width"])
        # Boxes may be empty at the border. Detectron2 leaves those out.
        full = (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(dim=1)
        assert len(found) == full.sum() > 0
        torch.testing.assert_close(found.pred_boxes.tensor, theirs["boxes"][full])
        torch.testing.assert_close(found.scores, theirs["scores"][full])
        assert torch.equal(found.pred_classes, theirs["labels"][full] - 1)


def test_boxes_are_scaled_to_the_requested_size(model):
    model.eval()
    small = two_images()[0]
    with torch.no_grad():
        boxes = model([small])[0]["instances"].pred_boxes.tensor
        found = model([{**small, "height": 194, "width": 393}])[0]["instances"]
    assert found.image_size == (194, 393)
    torch.testing.assert_close(found.pred_boxes.tensor, boxes * torch.tensor([3.0, 2.0, 3.0, 2.0]))


def test_objects_of_all_sizes_give_every_parameter_a_gradient(model):
    small = image(64, 64, [[2.0, 2.0, 18.0, 18.0]], [3])  # for the fine map
    sum(model([*two_images(), small]).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("others", [0, 1])
def test_images_without_boxes_have_finite_losses_and_gradients(model, others):
    losses = model([image(50, 70), *two_images()[:others]])
    assert all(loss.isfinite() for loss in losses.values())
    assert all((loss > 0) == bool(others) for loss in losses.values())
    sum(losses.values()).backward()
    # Every parameter has a gradient, as training with several processes requires.
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


def test_empty_ground_truth_boxes_are_left_out(model):
    boxes = [[10.0, 10.0, 60.0, 70.0], [30.0, 30.0, 30.0, 50.0], [130.99999, 5.0, 131.0, 50.0]]
    whole = image(97, 131, boxes, [1, 2, 3])
    losses = model([whole])
    alone = {**whole, "instances": whole["instances"][:1]}
    assert losses == model([alone])


def test_without_detections_all_fields_exist():
    model = tiny_ssd(score_thresh=1.0).eval()
    with torch.no_grad():
        found = model(two_images()[:1])[0]["instances"]
    assert len(found) == 0 and found.pred_boxes.tensor.shape == (0, 4)
    assert found.has("scores") and found.pred_classes.dtype == torch.int64


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (333, 7)])
def test_images_of_odd_and_tiny_sizes_train_and_infer(model, size):
    full = [0.0, 0.0, float(size[1]), float(size[0])]
    losses = model([image(*size, [full], [2])])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    with torch.no_grad():
        found = model.eval()([image(*size)])[0]["instances"]
    boxes = found.pred_boxes.tensor
    assert len(found) > 0 and (boxes >= 0).all()
    assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()


def test_it_overfits_one_image(model):
    inputs = two_images()[1:]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model(inputs).values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = model.eval()(inputs)[0]["instances"]
    assert found.pred_classes[0] == 0 and found.scores[0] > 0.8
    truth = inputs[0]["instances"].gt_boxes.tensor[0]
    assert (found.pred_boxes.tensor[0] - truth).abs().max() < 5


def test_default_boxes_keep_their_precision_in_mixed_precision():
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    maps = [torch.zeros(1, 1, side, side) for side in (38, 19)]
    expected = default_boxes()(images, maps)[0]
    found = default_boxes()(images, [x.half() for x in maps])[0]
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_default_boxes_for_another_number_of_maps_are_an_error():
    with pytest.raises(ValueError, match=r"2 maps \(fine, coarse\).*aspect_ratios.* 1"):
        tiny_ssd(anchor_generator=DefaultBoxes([[2]], scales=[0.2, 0.5]))
