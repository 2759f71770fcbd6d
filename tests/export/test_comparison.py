"""How far a graph's outputs are from the model's."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from hybrid_cascade.export import largest_differences, pool_with_torchvision
from hybrid_cascade.modeling import FusedROIPooler

from .models import model_outputs


def test_a_comparison_leaves_the_model_as_it_is_and_copies_no_weights(build, images):
    model = build("htc_toy")
    poolers = [m for m in model.modules() if isinstance(m, FusedROIPooler)]
    own_outputs = list(model_outputs(model, images[1]))
    copied = pool_with_torchvision(model)
    assert poolers and all(pooler.in_one_pass for pooler in poolers)
    assert not any(m.in_one_pass for m in copied.modules() if isinstance(m, FusedROIPooler))
    of_model, of_copy = (m.state_dict(keep_vars=True).values() for m in (model, copied))
    assert [id(tensor) for tensor in of_model] == [id(tensor) for tensor in of_copy]
    assert all(map(torch.equal, own_outputs, model_outputs(model, images[1])))


class Detector(nn.Module):
    """Detects what it is given."""

    def __init__(self, boxes, scores):
        super().__init__()
        self.found = Instances((8, 8), pred_boxes=Boxes(torch.tensor(boxes)))
        self.found.scores = torch.tensor(scores)

    def forward(self, batched_inputs):
        return [{"instances": self.found}]


@pytest.mark.parametrize(
    "boxes, scores, size, expected",
    [
        ([[0.0, 0, 4, 4]], [0.5], [8, 8], {"pred_boxes": 0, "scores": 0, "image_size": 0}),
        ([[0.0, 1, 4, 4]], [0.75], [8, 6], {"pred_boxes": 1, "scores": 0.25, "image_size": 2}),
        ([[0.0, 0, 4, math.nan]], [0.5], [8, 8], {"pred_boxes": math.inf}),
        ([[0.0, 0, 4, 4]] * 2, [0.5, 0.5], [8, 8], {"pred_boxes": math.inf, "scores": math.inf}),
    ],
)
def test_differences_are_those_of_each_field(boxes, scores, size, expected):
    model = Detector([[0.0, 0, 4, 4]], [0.5])
    outputs = torch.tensor(boxes), torch.tensor(scores), torch.tensor(size)
    differences = largest_differences(model, lambda image: outputs, torch.zeros(3, 8, 8))
    assert expected.items() <= differences.items()
    assert list(differences) == ["pred_boxes", "scores", "image_size"]


def test_there_is_no_difference_between_two_times_nothing():
    model = Detector([], [])
    model.found.pred_boxes.tensor = torch.zeros(0, 4)
    outputs = torch.zeros(0, 4), torch.zeros(0), torch.tensor([8, 8])
    differences = largest_differences(model, lambda image: outputs, torch.zeros(3, 8, 8))
    assert set(differences.values()) == {0}


def test_detections_of_the_same_score_may_stand_in_another_order():
    boxes = [[0.0, 0, 4, 4], [1.0, 1, 6, 6], [1.0, 1, 6, 6]]
    model = Detector(boxes, [0.5] * 3)
    model.found.pred_classes = torch.tensor([0, 1, 2])
    order = torch.tensor([2, 0, 1])

    def graph(image):
        classes = torch.arange(3)[order]
        return torch.tensor(boxes)[order], classes, torch.full((3,), 0.5), torch.tensor([8, 8])

    image = torch.zeros(3, 8, 8)
    assert set(largest_differences(model, graph, image).values()) == {0}
    model.found.pred_classes = torch.tensor([0, 1, 1])
    assert largest_differences(model, graph, image)["pred_classes"] > 0


def test_of_pasted_masks_the_different_pixels_count():
    model = Detector([[0.0, 0, 4, 4]], [0.5])
    model.found.pred_masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    model.found.pred_masks[:, :5, :2] = True
    masks = model.found.pred_masks.clone()
    masks[0, 0, :3] = torch.tensor([False, True, True])  # one pixel less, one more
    box, score, size = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0.5]), torch.tensor([8, 8])
    image = torch.zeros(3, 8, 8)
    differences = largest_differences(model, lambda *_: (box, masks, score, size), image, (8, 8))
    assert differences["pred_masks"] == pytest.approx(0.2)
    assert differences["pred_boxes"] == 0
