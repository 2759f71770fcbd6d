import pytest
import torch
from detectron2.data import MetadataCatalog
from torch import nn

from hybrid_cascade.engine.trained_with import describe_training, differences, read_description


@pytest.fixture
def plants():
    MetadataCatalog.get("plants").set(thing_classes=["fern", "moss"], json_file="plants.json")
    yield "plants"
    MetadataCatalog.remove("plants")


def test_classes_and_preparation_are_described_as_plain_values(plants):
    model = nn.Module()
    model.register_buffer("pixel_mean", torch.tensor([[[123.675]], [[116.28]]]), False)
    model.input_format = "RGB"
    described = describe_training(model, plants)
    assert described == {
        "thing_classes": ["fern", "moss"],
        "input_format": "RGB",
        "pixel_mean": [123.675, 116.28],
    }
    assert read_description({"trained_with": described}) == described
    assert differences(described, model) == []
    model.input_format = "BGR"
    assert differences(described, model) == ["input_format RGB instead of BGR"]
    assert differences({}, model) == []


@pytest.mark.parametrize("value", [None, "fern", [1], {"thing_classes": "fern"}, {"x": 1}])
def test_what_no_training_wrote_counts_as_nothing(value):
    assert read_description({"trained_with": value}) == {}
