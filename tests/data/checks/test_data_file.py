import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.checks import data_file as d


@pytest.fixture
def make(tmp_path):
    """Write a file of images 64 x 48, each with objects of class 3, and read it."""

    def make(name, change=lambda content: None, *, num_images=4, objects=4, seed=0):
        folder = tmp_path / name
        folder.mkdir()
        images, annotations = [], []
        for index in range(num_images):
            file_name = f"{name}_{index}.png"
            pixels = np.random.default_rng([seed, index]).integers(0, 255, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / file_name)
            images.append({"id": index, "file_name": file_name, "width": 64, "height": 48})
            for place in range(objects):
                box = [2 + 12 * place, 4, 10, 30]
                x, y, w, h = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index,
                        "category_id": 3,
                        "iscrowd": 0,
                        "area": 300,
                        "bbox": box,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 3, "name": "cup"}]
        change(content)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return d.DataFile.read(str(tmp_path / f"{name}.json"), str(folder))

    return make


def examined(file, *, evaluation=False, decode=True):
    d.examine(file, evaluation=evaluation, masks=file.has_masks, decode=decode)
    return file.report.counts


def test_data_without_faults_and_oddities_give_an_empty_report(make):
    train, val = make("train"), make("val", seed=1)
    assert examined(train) == {} and examined(val, evaluation=True) == {}
    d.find_unlisted_images([train, val])
    d.compare(train, val, *d.find_copies([train, val]))
    assert train.report.counts == val.report.counts == {}
    assert train.classes == {3: "cup"} and train.objects == {3: 16} and train.images_of == {3: 4}


def test_faults_of_the_file_and_of_its_images_are_in_one_report(make):
    def change(content):
        content["annotations"][0]["bbox"] = [0, 0, -5, 5]
        content["annotations"][1]["category_id"] = 8
        content["images"][1]["file_name"] = "gone.png"

    file = make("train", change)
    examined(file)
    text = file.report.describe(file.report.errors)
    for part in ("boxes of negative width", "annotations of no category", "gone.png'"):
        assert part in text


def test_images_that_no_file_lists_are_named_once(make):
    train, val = make("train"), make("val", seed=1)
    shared = d.DataFile(val.json_file, train.image_root, val.content, val.report)
    shutil.copy(train.images()[0]["file_name"], f"{train.image_root}/more.JPG")
    Path(train.image_root, "notes.txt").touch()
    shared.content["images"] = []
    train.content["images"].pop()
    shared.content["images"].append({"file_name": "train_3.png"})
    d.find_unlisted_images([train, shared])
    assert train.report.counts == {d.NOT_LISTED: 1} and shared.report.counts == {}
    assert "more.JPG" in train.report.examples[d.NOT_LISTED][0]


def test_a_truncated_image_is_found_if_pixels_are_read(make):
    file = make("train")
    path = Path(file.images()[2]["file_name"])
    path.write_bytes(path.read_bytes()[:5000])
    assert examined(file, decode=False) == {}
    file.report.counts.clear()
    assert [kind.title for kind in examined(file)] == ["files that cannot be read as an image"]


def test_tiny_boxes_and_missing_masks_are_odd(make):
    def change(content):
        content["annotations"][0]["bbox"] = [5, 5, 3.5, 9]
        content["annotations"][0]["segmentation"] = [[5, 5, 8.5, 5, 8.5, 14]]
        content["annotations"][1]["segmentation"] = []

    file = make("train", change)
    assert examined(file) == {d.TINY: 1, d.SOME_MASKS: 1}
    assert not file.report.errors


def test_a_file_of_boxes_alone_lacks_no_masks(make):
    def change(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    file = make("train", change)
    assert not file.has_masks and examined(file) == {}


def test_images_without_objects_and_crowds_alone_are_named(make):
    def change(content):
        content["annotations"] = content["annotations"][4:]
        for annotation in content["annotations"][:4]:
            annotation["iscrowd"] = 1

    file = make("train", change, num_images=5)
    assert examined(file) == {d.NO_OBJECTS: 2}
    assert file.report.examples[d.NO_OBJECTS] == ["'train_0.png'", "'train_1.png'"]
    assert file.objects == {3: 12}


@pytest.mark.parametrize("number, is_few", [(0, True), (3, True), (4, False)])
def test_classes_of_few_objects_are_odd_where_they_are_trained_on(make, number, is_few):
    def change(content):
        content["categories"].append({"id": 0, "name": "fork"})
        for annotation in content["annotations"][:number]:
            annotation["category_id"] = 0

    file = make("train", change)
    assert examined(file) == ({d.FEW: 1} if is_few else {})
    assert list(file.classes.values()) == ["fork", "cup"]  # in the order of the ids
    file.report.counts.clear()
    assert examined(file, evaluation=True) == {}


def test_one_class_of_a_hundred_times_the_objects_of_another_is_odd(make):
    def change(content):
        content["categories"].append({"id": 0, "name": "fork"})
        for annotation in content["annotations"][:4]:
            annotation["category_id"] = 0

    balanced = make("balanced", change, num_images=2)
    assert examined(balanced) == {}
    balanced.objects[3] = 401
    d._find_odd_classes(balanced)
    assert balanced.report.counts == {d.SOME_CLASSES_ARE_RARE: 1}
    assert "'cup' has 401 objects, 'fork' has 4" in str(balanced.report.examples)


def test_copies_of_images_are_found_by_content(make):
    train = make("train")
    first, second, third, _ = (x["file_name"] for x in train.images())
    shutil.copy(first, second)
    shutil.copy(first, third)
    [contents] = d.find_copies([train])
    assert train.report.counts == {d.SAME_CONTENT: 2}
    assert sorted(map(len, contents.values())) == [1, 3]


def test_images_in_both_files_are_found_by_content_and_by_name(make):
    def rename(content):
        content["images"][1]["file_name"] = "train_2.png"

    train, val = make("train"), make("val", seed=0, num_images=2)  # the same first two images
    d.compare(train, val, *d.find_copies([train, val]))
    assert val.report.counts == {d.OVERLAP: 2} and not val.report.errors
    assert "val_0.png' is '" in val.report.examples[d.OVERLAP][0]

    other = make("other", rename, seed=7, num_images=2)
    folder = other.image_root
    Image.new("RGB", (64, 48)).save(f"{folder}/train_2.png")
    d.compare(train, other, *d.find_copies([train, other]))
    assert other.report.counts == {d.SAME_NAME: 1}


def test_other_classes_to_evaluate_on_are_errors_or_odd(make):
    def two(*names):
        def change(content):
            content["categories"] = [{"id": i + 3, "name": n} for i, n in enumerate(names)]

        return change

    train = make("train", two("cup", "fork"))
    for name, names, expected in (
        ("fewer", ["cup"], {d.OTHER_CLASSES}),
        ("order", ["fork", "cup"], {d.OTHER_CLASSES, d.NEVER_TRAINED}),
        ("names", ["cup", "Gabel"], {d.OTHER_NAMES}),
    ):
        val = make(name, two(*names), seed=1)
        d.compare(train, val, {}, {})
        assert set(val.report.counts) == expected, name


def test_a_file_that_is_no_annotation_file_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(DatasetError, match="a.json' is not in COCO's format"):
        d.DataFile.read(str(path), str(tmp_path))
