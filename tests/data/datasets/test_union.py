import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from hybrid_cascade.data import DatasetError, load_datasets

BOX = {"bbox": [0, 0, 5, 5], "bbox_mode": 0, "category_id": 0}


@pytest.fixture
def register(monkeypatch):
    """Register datasets, which are gone after the test."""
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    monkeypatch.setattr(MetadataCatalog, "data", dict(MetadataCatalog.data))

    def register(name, *dicts, **metadata):
        DatasetCatalog.register(name, lambda: list(dicts))
        MetadataCatalog.get(name).set(**metadata)

    return register


@pytest.mark.parametrize("names", [["boxes", "labels"], ["labels", "boxes"]])
def test_datasets_with_and_without_instance_labels_come_together(register, names):
    boxes = [{"file_name": "a", "annotations": [BOX]}, {"file_name": "empty", "annotations": []}]
    register("boxes", *boxes, thing_classes=["cat"])
    register("labels", {"file_name": "b", "sem_seg_file_name": "c"}, stuff_classes=["sky"])
    found = {image["file_name"] for image in load_datasets(names)}
    assert found == {"a", "b"}  # the empty image is left out
    assert len(load_datasets(names, filter_empty=False)) == 3


def test_a_single_dataset_is_what_detectron2_loads(register):
    register("boxes", {"file_name": "a", "annotations": [BOX]}, thing_classes=["cat"])
    assert load_datasets("boxes") == get_detection_dataset_dicts("boxes")


def test_datasets_of_other_classes_are_refused(register):
    register("cats", {"file_name": "a", "annotations": [BOX]}, thing_classes=["cat"])
    register("dogs", {"file_name": "b", "annotations": [BOX]}, thing_classes=["dog"])
    register("labels", {"file_name": "c", "sem_seg_file_name": "d"})
    with pytest.raises(ValueError, match="thing_classes"):
        load_datasets(["labels", "cats", "dogs"])


def test_images_with_and_without_annotations_in_one_dataset_are_refused(register):
    register("mixed", {"file_name": "a", "annotations": [BOX]}, {"file_name": "b"})
    with pytest.raises(DatasetError, match="'mixed': some images have `annotations`"):
        load_datasets(["mixed"])
