import copy
import logging

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from hybrid_cascade.data import DatasetError, check_dataset

NAME = "plants to check"
MetadataCatalog.get(NAME).set(thing_classes=["fern", "moss", "tree"])

WIDTH, HEIGHT = 8, 6


@pytest.fixture
def image(tmp_path):
    """Return a dict without mistakes: a crowd, a polygon, a label map with ignored pixels."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[0] = 3
    labels[1] = 255
    Image.fromarray(labels).save(tmp_path / "map.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "image.jpg")
    return {
        "file_name": str(tmp_path / "image.jpg"),
        "sem_seg_file_name": str(tmp_path / "map.png"),
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": [
            {
                "category_id": 0,
                "iscrowd": 1,
                "bbox": [1, 0, 1, 2],
                "bbox_mode": BoxMode.XYWH_ABS,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [6, 2, 40]},
            },
            {
                "category_id": 2,
                "iscrowd": 0,
                "bbox": [1, 1, 5, 5],
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": [[1, 1, 5, 1, 5, 5]],
            },
        ],
    }


def check(*images, num_classes=3, semantic_num_classes=4, **options):
    check_dataset(
        images, NAME, num_classes=num_classes, semantic_num_classes=semantic_num_classes, **options
    )


def check_fails(image, *words, **options):
    """Assert that the error has all the words, and the name of the dataset."""
    with pytest.raises(DatasetError) as error:
        check(image, **options)
    for word in (NAME, *words):
        assert word in str(error.value)


def test_a_dataset_without_mistakes_passes(image):
    only_crowd, empty, no_map = copy.deepcopy(image), copy.deepcopy(image), copy.deepcopy(image)
    only_crowd["annotations"] = only_crowd["annotations"][:1]
    empty["annotations"] = []
    del no_map["sem_seg_file_name"]
    only_boxes = copy.deepcopy(no_map)
    for annotation in only_boxes["annotations"]:
        del annotation["segmentation"]
    check(image, only_crowd, empty, no_map, only_boxes)


def test_a_dataset_without_images_is_an_error():
    with pytest.raises(DatasetError, match=f"{NAME}' has no images"):
        check()


@pytest.mark.parametrize("num_classes", [2, 80])
def test_another_number_of_classes_than_the_dataset_s_is_named_with_its_keys(image, num_classes):
    keys = ("3 classes", "model.roi_heads.num_classes", "MODEL.ROI_HEADS.NUM_CLASSES")
    check_fails(image, *keys, str(num_classes), num_classes=num_classes)


def test_a_missing_image_is_named(image, tmp_path):
    image["file_name"] = str(tmp_path / "moved.jpg")
    check_fails(image, "file_name", "moved.jpg", "does not exist")


def test_a_broken_image_is_named(image):
    with open(image["file_name"], "w") as file:
        file.write("<html>Not found</html>")
    check_fails(image, "image.jpg", "cannot be read as an image")


def test_an_image_of_another_size_than_annotated_is_named_with_both_sizes(image):
    image["annotations"] = []
    image["width"], image["height"] = HEIGHT, WIDTH
    check_fails(image, "image.jpg", "8x6", "6x8", "`width`")


def test_an_image_on_its_side_has_the_size_that_it_is_loaded_with(image):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    Image.new("RGB", (HEIGHT, WIDTH)).save(image["file_name"], exif=exif)
    check(image)


def test_a_mask_of_another_size_than_its_image_is_named_with_both_sizes(image):
    image["annotations"][0]["segmentation"]["size"] = [HEIGHT, WIDTH + 1]
    check_fails(image, "annotation 0", "image.jpg", "[6, 9]", "[6, 8]", "`segmentation`")


@pytest.mark.parametrize("category", [-1, 3])
def test_a_category_out_of_range_is_named_with_its_annotation(image, category):
    image["annotations"][1]["category_id"] = category
    check_fails(image, "annotation 1", "image.jpg", f"`category_id` {category}", "[0, 3)")


@pytest.mark.parametrize("polygon", [[1, 1, 5, 1], [1, 1, 5, 1, 5, 5, 2]])
def test_a_polygon_of_too_few_or_an_odd_number_of_values_is_named(image, polygon):
    image["annotations"][1]["segmentation"].append(polygon)
    check_fails(image, "annotation 1", "image.jpg", f"polygon of {len(polygon)} numbers")


def test_a_missing_label_map_is_an_error_if_there_is_a_semantic_branch(image, tmp_path):
    image["sem_seg_file_name"] = str(tmp_path / "moved.png")
    check_fails(image, "sem_seg_file_name", "moved.png", "does not exist")
    check(image, semantic_num_classes=None)  # not needed without a semantic branch


def test_a_label_map_of_another_size_than_its_image_is_named_with_both_sizes(image):
    Image.new("L", (HEIGHT, WIDTH)).save(image["sem_seg_file_name"])
    check_fails(image, "map.png", "6x8", "8x6")


@pytest.mark.parametrize("mode", ["RGB", "P", "1", "LA"])
def test_a_label_map_that_is_not_single_channel_gray_is_named_with_its_format(image, mode):
    Image.new(mode, (WIDTH, HEIGHT)).save(image["sem_seg_file_name"])
    check_fails(image, "map.png", f"'{mode}'", "single-channel")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_value_out_of_range_in_a_label_map_is_named_with_the_keys_to_set(image, dtype):
    labels = np.full((HEIGHT, WIDTH), 255, dtype)
    labels[2, 3] = 4
    Image.fromarray(labels).save(image["sem_seg_file_name"])
    keys = ("model.semantic_branch.num_classes", "MODEL.SEMANTIC_BRANCH.NUM_CLASSES")
    check_fails(image, "map.png", "value 4", "[0, 4)", *keys)
    check(image, semantic_num_classes=5)


def test_the_ignored_value_is_the_given_one(image):
    check_fails(image, "value 255", "3 to be ignored", semantic_ignore_value=3)


def test_of_many_images_a_sample_is_opened_and_all_annotations_are_checked(image, caplog):
    caplog.set_level(logging.INFO, logger="hybrid_cascade")
    missing = {**image, "file_name": "moved.jpg"}
    check(image, missing, image, missing, image, max_images=3)
    assert "opening 3 of its 5 images" in caplog.text
    with pytest.raises(DatasetError, match="moved.jpg"):
        check(image, missing, image, missing, image, max_images=5)
    with pytest.raises(DatasetError, match="`category_id` 9"):
        bad = {**missing, "annotations": [{"category_id": 9}]}
        check(image, bad, image, missing, image, max_images=3)


def test_all_mistakes_are_in_one_report_most_frequent_first(image):
    image["annotations"][1]["category_id"] = 7
    others = [copy.deepcopy(image) for _ in range(3)]
    for other in others:
        del other["annotations"][0]["bbox"]
    with pytest.raises(DatasetError) as error:
        check(image, *others)
    first, second = str(error.value).splitlines()[1:]
    assert "`category_id` out of range, 4 times: annotation 1" in first
    assert "without a box, 3 times: annotation 0" in second and "has no `bbox`" in second


def test_faults_are_only_logged_on_request(image, caplog):
    image["annotations"][1]["category_id"] = 7
    check(image, stop=False)
    assert "has `category_id` 7" in caplog.text


@pytest.mark.parametrize("values", [[-1], [256], [65535]])
def test_values_that_do_not_fit_in_8_bits_are_named(image, values):
    labels = np.full((HEIGHT, WIDTH), values[0], np.int32)
    Image.fromarray(labels).save(image["sem_seg_file_name"], format="TIFF")
    check_fails(image, "map.png", f"value {values[0]}", "8 bits", semantic_ignore_value=65535)


def test_stuff_classes_have_to_match(image):
    MetadataCatalog.get(NAME).stuff_classes = ["a", "b", "c", "d", "e"]
    try:
        check_fails(image, "5 labels (`stuff_classes`)", "MODEL.SEMANTIC_BRANCH.NUM_CLASSES")
    finally:
        del MetadataCatalog.get(NAME).stuff_classes


def test_a_truncated_image_is_found_by_a_full_decode_only(image):
    Image.effect_noise((WIDTH, HEIGHT), 90).save(image["file_name"], "PNG")
    with open(image["file_name"], "r+b") as file:
        file.truncate(60)
    check(image)
    check_fails(image, "image.jpg", "cannot be read", decode=True)


@pytest.mark.parametrize(
    ("mode", "size", "word"),
    [("RGB", (1, 1), "one pixel"), ("I;16", (WIDTH, HEIGHT), "'I;16'"), ("F", (8, 6), "'F'")],
)
def test_images_that_would_be_read_wrongly_are_named(image, mode, size, word):
    Image.new(mode, size).save(image["file_name"], "TIFF")
    check_fails(image, "image.jpg", word)


def test_an_image_of_too_many_pixels_is_named(image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    check_fails(image, "image.jpg", "too many pixels", "MAX_IMAGE_PIXELS")


@pytest.mark.parametrize("image_id", [None, 3])
def test_images_to_evaluate_on_need_an_id_of_their_own(image, image_id):
    image["image_id"] = image_id
    check(image, image)
    with pytest.raises(DatasetError, match=f"`image_id` {image_id}"):
        check(image, {**image}, evaluation=True)


@pytest.mark.parametrize("flag", [2, -1, None, "0", 0.5])
def test_a_crowd_flag_of_another_kind_is_named(image, flag):
    image["annotations"][1]["iscrowd"] = flag
    check_fails(image, "annotation 1", f"`iscrowd` {flag!r}")


def test_a_box_needs_a_mode(image):
    del image["annotations"][1]["bbox_mode"]
    check_fails(image, "annotation 1", "bbox_mode")
