import pytest
from detectron2.data import MetadataCatalog

from hybrid_cascade.predict import find_class_names


@pytest.fixture
def plants():
    MetadataCatalog.get("plants").set(
        thing_classes=["fern", "moss"], thing_colors=[(1, 2, 3), (4, 5, 6)], ignore_label=255
    )
    yield "plants"
    MetadataCatalog.remove("plants")


def test_names_are_those_of_the_checkpoint(plants):
    found = find_class_names({"thing_classes": ["Farn", "Moos"]}, plants)
    assert found.thing_classes == ["Farn", "Moos"] and found.get("thing_colors") is None
    assert find_class_names({"thing_classes": ["Farn"]}, None).thing_classes == ["Farn"]


@pytest.mark.parametrize("trained_with", [{}, {"thing_classes": ["fern", "moss"]}])
def test_what_the_checkpoint_does_not_say_is_the_datasets(plants, trained_with):
    found = find_class_names(trained_with, plants)
    assert found.thing_classes == ["fern", "moss"] and len(found.thing_colors) == 2
    assert found.ignore_label == 255
