import json
import math

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from pycocotools import mask as mask_util

from hybrid_cascade.data import DatasetError, check_coco_file
from hybrid_cascade.data.checks.masks import decode_run_lengths

NAME = "plants in a file"


@pytest.fixture
def content():
    """Return a file without mistakes: 4 objects in each of 2 images of 64 x 48 pixels."""
    boxes = [[x, 4, 12, 30] for x in (1, 16, 31, 46)] * 2
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (3, 4)],
        "categories": [{"id": 1, "name": "fern"}, {"id": 5, "name": "moss"}],
        "annotations": [
            {
                "id": index + 1,
                "image_id": 3 + index // 4,
                "category_id": 5,
                "iscrowd": 0,
                "area": 360,
                "bbox": [x, y, w, h],
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
            for index, (x, y, w, h) in enumerate(boxes)
        ],
    }


@pytest.fixture
def check(tmp_path):
    def write_and_check(content, **options):
        path = tmp_path / "plants.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        MetadataCatalog.get(NAME).json_file = str(path)
        try:
            check_coco_file(NAME, **{"evaluation": True, "masks": True, **options})
        finally:
            MetadataCatalog.remove(NAME)

    return write_and_check


def test_a_file_without_mistakes_passes_quietly(content, check, caplog):
    check(content)
    runs = mask_util.encode(np.asfortranarray(np.eye(48, 64, dtype=np.uint8)))
    content["annotations"][0] |= {
        "bbox": [0, 0, 48, 48],
        "segmentation": {"size": [48, 64], "counts": runs["counts"].decode()},
    }
    content["annotations"][1] |= {
        "iscrowd": 1,
        "segmentation": {"size": [48, 64], "counts": [10, 3062]},
    }
    check(content)
    assert caplog.text == ""


SQUARE = [16, 4, 28, 4, 28, 34, 16, 34]
RUNS = {"size": [48, 64], "counts": [10, 3062]}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bbox", [1, 2, math.nan, 3], "not finite"),
        ("bbox", [1, 2, math.inf, 3], "not finite"),
        ("bbox", [20, 20, -5, 3], "negative"),
        ("bbox", [16, 4, 0, 30], "without area"),
        ("bbox", [70, 4, 12, 30], "out of their image.*64x48"),
        ("bbox", [16, 40, 12, 30], "out of their image.*64x48"),
        ("bbox", [16, 4, 28, 34], r"as \[x1, y1, x2, y2\] only"),
        ("bbox", [0.2, 0.1, 0.2, 0.6], "from 0 to 1"),
        ("bbox", ["16", "4", "12", "30"], "without a box.*'16'"),
        ("bbox", [16, 4, 12], "without a box"),
        ("bbox", None, "without a box"),
        ("segmentation", [[math.nan, *SQUARE[1:]]], "NaN or infinity"),
        ("segmentation", [[1e9, *SQUARE[1:]]], "far out of their image"),
        ("segmentation", [[*SQUARE[:-1], 10**400]], "neither polygons nor run lengths"),
        ("segmentation", [["16", *SQUARE[1:]]], "neither polygons nor run lengths"),
        ("segmentation", SQUARE, "neither polygons nor run lengths"),
        ("segmentation", [SQUARE[:4]], "polygon of 4 numbers"),
        ("segmentation", [SQUARE[:7]], "polygon of 7 numbers"),
        ("segmentation", [[v / 64 for v in SQUARE]], "from 0 to 1"),
        ("segmentation", [[v + 30 for v in SQUARE]], "polygons that reach out of their image"),
        ("segmentation", [[3, 3] * 4], "polygons without area"),
        ("segmentation", "polygon", "neither polygons nor run lengths"),
        ("segmentation", [], "without a mask"),
        ("segmentation", {**RUNS, "counts": [10, 3063]}, "sum to 3073 instead of 3072"),
        ("segmentation", {**RUNS, "counts": [10, 306]}, "sum to 316"),
        ("segmentation", {**RUNS, "counts": [-1, 3073]}, "the run -1"),
        ("segmentation", {**RUNS, "counts": [10.5, 3061.5]}, "not all integers"),
        ("segmentation", {**RUNS, "counts": "oooo"}, "can't be decoded"),
        ("segmentation", {**RUNS, "counts": [3072]}, r"without a pixel.*\[3072\]"),
        ("segmentation", {**RUNS, "counts": [9, 0, 3063]}, "without a pixel"),
        ("segmentation", {**RUNS, "size": [64, 48]}, r"`size` \[64, 48\].*\[48, 64\]"),
        ("iscrowd", "0", "`iscrowd` '0'"),
        ("area", None, "`area` None"),
        ("area", -3, "`area` -3"),
        ("category_id", 2, "`category_id` 2"),
        ("ignore", 1, "`ignore`"),
        ("keypoints", ["a", 1, 2], "`keypoints`"),
    ],
)
def test_a_fault_is_named_with_file_image_and_annotation(content, check, key, value, words):
    content["annotations"][1][key] = value
    with pytest.raises(DatasetError, match=words) as error:
        check(content)
    assert "plants.json" in str(error.value)
    assert "annotation 2 of image '3.jpg' (`image_id` 3)" in str(error.value)


@pytest.mark.parametrize(
    ("x", "y", "width", "height"), [(16, 4, 12, 30), (9, 0, 2, 48), (5, 20, 40, 1)]
)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_boxes_of_corners_are_found_by_run_lengths(
    content, check, x, y, width, height, is_compressed
):
    pixels = np.zeros((48, 64), np.uint8, order="F")
    pixels[y : y + height, x : x + width] = 1
    if height == 48:  # a run that goes on in the next column
        pixels[:10, x] = pixels[-10:, x + width - 1] = 0
    ends = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0))
    counts = np.diff(ends, prepend=0, append=48 * 64).tolist()
    if is_compressed:
        counts = mask_util.encode(pixels)["counts"].decode()
    content["annotations"][1] |= {
        "bbox": [x, y, width, height],
        "segmentation": {"size": [48, 64], "counts": counts},
    }
    check(content)
    content["annotations"][1]["bbox"] = [x, y, x + width, y + height]
    with pytest.raises(DatasetError, match=r"as \[x1, y1, x2, y2\] only"):
        check(content)


@pytest.mark.parametrize("key", ["area", "iscrowd", "segmentation"])
def test_what_only_an_evaluation_needs_may_lack_in_training(content, check, key):
    del content["annotations"][1][key]
    check(content, evaluation=False)
    with pytest.raises(DatasetError, match="annotation 2 of image '3.jpg'"):
        check(content)


def test_annotation_ids_of_0_are_an_error_in_an_evaluation_only(content, check):
    content["annotations"][0]["id"] = 0
    check(content, evaluation=False)
    with pytest.raises(DatasetError, match="annotation ids of 0.*annotation 0 of image '3.jpg'"):
        check(content)


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("images", {"id": 4}, "same id.*'3.jpg'"),
        ("images", {"id": "3"}, "image ids.*'3'"),
        ("images", {"id": None}, "image ids"),
        ("images", {"file_name": None}, "file_name"),
        ("images", {"width": 0}, "`width` 0"),
        ("images", {"height": 48.5}, "`height` 48.5"),
        ("categories", {"id": 5}, "categories that can't be used.*'moss'"),
        ("categories", {"name": None}, "categories that can't be used"),
        ("annotations", {"id": 2}, "annotations of the same id.*2 have the `id` 2"),
        ("annotations", {"id": "1"}, "annotation ids"),
        ("annotations", {"id": None}, "annotation ids"),
        ("annotations", {"image_id": "3"}, "`image_id` '3'"),
    ],
)
def test_ids_and_sizes_are_checked(content, check, section, change, words):
    content[section][0] |= change
    with pytest.raises(DatasetError, match=words):
        check(content)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", '{"images": []}', '{"images": 3, "categories": {}}', "[" * 10**5]
)
def test_a_file_of_another_kind_is_named(check, text):
    with pytest.raises(DatasetError, match=r"plants\.json"):
        check(text)


@pytest.mark.parametrize("section", ["images", "categories", "annotations"])
def test_entries_of_another_kind_are_named(content, check, section):
    content[section].insert(1, "b.jpg")
    with pytest.raises(DatasetError, match=f"entry 1 of `{section}` is 'b.jpg'"):
        check(content)


def test_a_few_boxes_without_area_among_thousands_are_logged_only(content, check, caplog):
    first = content["annotations"][0]
    content["annotations"] = [{**first, "id": i + 1} for i in range(2000)]
    content["annotations"][7]["bbox"] = [1, 4, 0, 30]
    check(content)
    assert "boxes without area: annotation 8 of image '3.jpg'" in caplog.text
    for annotation in content["annotations"][10:20]:
        annotation["bbox"] = [1, 4, 0, 30]
    with pytest.raises(DatasetError, match="boxes without area, 11 times"):
        check(content)


def test_annotations_of_other_images_are_logged_unless_they_are_all(content, check, caplog):
    content["annotations"][0]["image_id"] = 99
    check(content)
    assert "not in the file: annotation 1" in caplog.text
    for annotation in content["annotations"]:
        annotation["image_id"] = 99
    with pytest.raises(DatasetError, match="none of the 8 has the `id` of an image"):
        check(content)


def test_compressed_run_lengths_are_decoded_as_by_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 200, 2)
        mask = (rng.random((height, width)) < rng.random() ** 3).astype(np.uint8)
        runs = decode_run_lengths(mask_util.encode(np.asfortranarray(mask))["counts"])
        pixels = np.repeat(np.arange(len(runs)) % 2, runs)
        assert (mask == pixels.reshape(width, height).T).all()
