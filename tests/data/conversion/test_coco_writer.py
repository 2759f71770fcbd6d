import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.conversion import LabelledImage, LabelledInstance, split_coco, to_coco

from .conftest import rectangle

SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]


def image(*instances, name="a.jpg"):
    return LabelledImage(name, 40, 30, list(instances))


def instance(label="cup", mask=None, box=(2, 2, 12, 12)):
    return LabelledInstance(label, box, mask, "line 3")


def test_images_objects_and_classes_are_numbered_from_one():
    content = to_coco(
        [image(instance("fork")), image(name="b.jpg"), image(instance("cup"), instance("fork"))]
    )
    assert content["categories"] == [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}]
    assert [x["id"] for x in content["images"]] == [1, 2, 3]
    assert content["images"][1] == {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30}
    found = [(x["id"], x["image_id"], x["category_id"]) for x in content["annotations"]]
    assert found == [(1, 1, 2), (2, 3, 1), (3, 3, 2)]


def test_boxes_outlines_and_run_lengths_become_those_of_coco():
    hole = rectangle(2, 2, 12, 12) - rectangle(4, 4, 8, 8)
    runs = coco_mask.encode(np.asfortranarray(hole))
    second = [20.0, 20.0, 25.0, 20.0, 25.0, 25.0, 20.0, 25.0]
    boxes, outlines, encoded = to_coco(
        [image(instance(), instance(mask=[SQUARE, second]), instance(mask=runs))]
    )["annotations"]
    assert boxes["bbox"] == [2, 2, 10, 10] and boxes["area"] == 100
    assert "segmentation" not in boxes and boxes["iscrowd"] == 0
    assert outlines["segmentation"] == [SQUARE, second] and outlines["area"] == 125
    assert encoded["segmentation"] == {"size": [30, 40], "counts": runs["counts"].decode()}
    assert encoded["area"] == 100 - 16


def test_outlines_that_overlap_count_once():
    [annotation] = to_coco([image(instance(mask=[SQUARE, SQUARE]))])["annotations"]
    assert annotation["area"] == 100


def test_given_classes_keep_their_order_and_another_one_is_an_error():
    content = to_coco([image(instance("fork"))], ["spoon", "fork"])
    assert content["annotations"][0]["category_id"] == 2
    with pytest.raises(DatasetError, match="line 3 has the class 'cup', which is none of spoon"):
        to_coco([image(instance("cup"))], ["spoon", "fork"])


@pytest.mark.parametrize("fraction, expected", [(0.2, 2), (0.01, 1), (0.99, 9)])
def test_images_are_shared_among_two_files_with_their_objects(fraction, expected):
    whole = to_coco([image(instance(), instance(), name=f"{i}.jpg") for i in range(10)])
    train, val = split_coco(whole, fraction)
    assert len(val["images"]) == expected
    for key in ("images", "annotations"):
        both = sorted(train[key] + val[key], key=lambda x: x["id"])
        assert both == whole[key]
    for part in (train, val):
        assert {x["image_id"] for x in part["annotations"]} == {x["id"] for x in part["images"]}
        assert part["categories"] == whole["categories"]
        assert [x["id"] for x in part["images"]] == sorted(x["id"] for x in part["images"])
    assert split_coco(whole, fraction) == (train, val)
    assert any(split_coco(whole, fraction, seed)[1] != val for seed in (1, 2, 3))


def test_one_image_cannot_be_shared():
    with pytest.raises(DatasetError, match="1 images can't be shared"):
        split_coco(to_coco([image()]), 0.5)
