import pytest

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.conversion import lvis_to_coco

CONTENT = {
    "images": [
        {"id": 9, "coco_url": "http://images.cocodataset.org/val2017/000000000009.jpg", "width": 3},
        {"id": 8, "file_name": "a.jpg", "neg_category_ids": [1]},
    ],
    "annotations": [{"id": 1, "image_id": 9, "category_id": 5, "bbox": [0, 0, 2, 2], "area": 4}],
    "categories": [{"id": 5, "name": "cup", "synset": "cup.n.01", "frequency": "r"}],
}


def test_names_of_files_and_crowd_flags_are_added():
    content = lvis_to_coco(CONTENT, "a.json")
    assert [x["file_name"] for x in content["images"]] == ["val2017/000000000009.jpg", "a.jpg"]
    assert content["images"][0]["width"] == 3
    assert content["annotations"] == [{**CONTENT["annotations"][0], "iscrowd": 0}]
    assert content["categories"] == [{"id": 5, "name": "cup"}]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"images": [{"id": 3}]}, "image with `id` 3 has neither"),
        ({"images": [{"id": 3, "coco_url": "x/"}]}, "image with `id` 3 has neither"),
        ({"images": ["x"]}, "not in LVIS's format"),
        ({"annotations": [3]}, "not in LVIS's format"),
        ({"categories": [{"id": 3}]}, "not in LVIS's format"),
    ],
)
def test_what_is_broken_is_named(changes, reason):
    with pytest.raises(DatasetError, match=f"^a.json.*{reason}"):
        lvis_to_coco({**CONTENT, **changes}, "a.json")
