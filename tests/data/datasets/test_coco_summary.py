import json

import pytest

from hybrid_cascade.data import DatasetError, summarize_coco_json
from hybrid_cascade.data.datasets import CocoSummary


def test_images_classes_and_kinds_of_masks_are_counted(tmp_path):
    polygon, runs = [[0, 0, 4, 0, 4, 4]], {"size": [8, 8], "counts": [0, 64]}
    annotations = [
        {"image_id": 1, "segmentation": polygon},
        {"image_id": 1, "segmentation": runs},
        {"image_id": 1, "segmentation": []},
        {"image_id": 2, "segmentation": None},
        {"image_id": 3, "segmentation": runs, "iscrowd": 1},
        {"image_id": 99, "iscrowd": 0},  # no image of the file
        "no record",
    ]
    content = {
        "images": [{"id": index} for index in range(5)],
        "categories": [{"id": 7, "name": "fork"}, {"id": 0, "name": "cup"}],
        "annotations": annotations,
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    summary = summarize_coco_json(path)
    assert summary.num_classes == 2
    assert summary == CocoSummary(
        num_images=5,
        num_labelled_images=2,
        class_names=["cup", "fork"],
        num_instances=5,
        num_masks=2,
        num_run_lengths=1,
    )
    del content["annotations"]
    path.write_text(json.dumps(content))
    assert summarize_coco_json(path).num_instances == 0


def test_a_file_that_is_no_annotation_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(DatasetError, match="a.json' can't be read"):
        summarize_coco_json(path)
