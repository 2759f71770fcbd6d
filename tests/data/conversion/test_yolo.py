import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from PIL import ExifTags, Image

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.conversion import find_class_list, read_class_names, read_yolo
from hybrid_cascade.predict.result import Result
from hybrid_cascade.predict.writers import write_yolo

from .conftest import masks_of, rectangle

NAMES = ["cup", "fork"]


@pytest.fixture
def read(tmp_path, make_images):
    """Read labels (name -> text) of images of 40 x 30 pixels."""

    def read(labels, images=("a.jpg",)):
        root = make_images(*images)
        for name, text in labels.items():
            path = tmp_path / "labels" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(read_yolo(tmp_path / "labels", root, NAMES))

    return read


def test_boxes_and_outlines_are_in_pixels(read):
    outline = "0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"
    [image] = read({"a": f"1 0.5 0.5 0.25 0.4\n\n0 {outline}\n"})
    box, polygon = image.instances
    assert box.label == "fork" and box.mask is None
    np.testing.assert_allclose(box.box, [15, 9, 25, 21])
    assert polygon.label == "cup"
    np.testing.assert_allclose(polygon.box, [4, 3, 20, 15])
    np.testing.assert_array_equal(masks_of([image])[0], rectangle(4, 3, 20, 15))


def test_an_outline_with_a_hole_keeps_it(read):
    # Around the outer border, over to the hole, around it the other way, and back.
    points = [
        (4, 3),
        (20, 3),
        (20, 15),
        (4, 15),
        (4, 3),
        (8, 6),
        (8, 12),
        (16, 12),
        (16, 6),
        (8, 6),
    ]
    text = " ".join(f"{x / 40} {y / 30}" for x, y in points)
    [mask] = masks_of(read({"a": f"0 {text}"}))
    np.testing.assert_array_equal(mask, rectangle(4, 3, 20, 15) - rectangle(8, 6, 16, 12))


def test_images_without_labels_have_no_objects_and_folders_match(read):
    images = read(
        {"x/b": "0 0.5 0.5 0.1 0.1", "classes": "cup\nfork"}, images=("a.jpg", "x/b.png", "x/c.jpg")
    )
    found = {image.file_name: len(image.instances) for image in images}
    assert found == {"a.jpg": 0, "x/b.png": 1, "x/c.jpg": 0}


def test_fractions_are_of_the_image_as_it_is_turned(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 1 1")
    [image] = read_yolo(tmp_path, tmp_path, NAMES)
    assert (image.width, image.height) == (30, 40) and image.instances[0].box == [0, 0, 30, 40]


def test_what_the_predictor_writes_is_read_again(tmp_path, make_images):
    root = make_images("deep/a.jpg")
    mask = rectangle(15, 5, 33, 22).astype(bool)
    fields = {
        "pred_boxes": Boxes(torch.tensor([[15.0, 5, 33, 22]])),
        "scores": torch.tensor([0.9]),
        "pred_classes": torch.tensor([1]),
    }
    image, names = np.zeros((30, 40, 3), np.uint8), Metadata(thing_classes=NAMES)
    for more in ({}, {"pred_masks": torch.from_numpy(mask)[None]}):
        result = Result("deep/a.jpg", image, Instances((30, 40), **fields, **more), names)
        write_yolo(result, tmp_path, "deep/a.jpg")
        [found] = read_yolo(tmp_path / "yolo", root, NAMES)
        [instance] = found.instances
        assert instance.label == "fork" and (instance.mask is None) == (not more)
        np.testing.assert_allclose(instance.box, [15, 5, 33, 22], atol=0.13)
    np.testing.assert_array_equal(masks_of([found], NAMES)[0], mask)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("2 0.5 0.5 0.1 0.1", "has the class '2'; it is a number from 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "has the class '-1'"),
        ("cup 0.5 0.5 0.1 0.1", "has the class 'cup'"),
        ("0 0.5 0.5 0.1", "has 3 numbers after the class"),
        ("0 0.1 0.1 0.2 0.2 0.3", "has 5 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 7 numbers"),
        ("0", "has 0 numbers"),
        ("0 20 15 10 10", "has 20.0: all are fractions"),
        ("0 nan 0.5 0.1 0.1", "has nan: all are fractions"),
        ("0 0.5 0.5 0.1 x", "can't be read"),
    ],
)
def test_what_is_broken_is_named_by_file_and_line(read, line, reason):
    with pytest.raises(DatasetError, match=f"a.txt': line 2 {reason}"):
        read({"a": f"0 0.5 0.5 0.1 0.1\n{line}"})


def test_labels_and_images_that_do_not_belong_together_are_refused(read):
    with pytest.raises(DatasetError, match="1 files of labels have no image.*'.*b.txt'"):
        read({"a": "", "b": ""})


def test_labels_of_no_image_at_all_are_refused(read):
    with pytest.raises(DatasetError, match="has labels of none of the images"):
        read({"classes": "cup"})


def test_images_that_would_share_their_labels_are_refused(read):
    with pytest.raises(DatasetError, match="several images 'a.*'"):
        read({"a": ""}, images=("a.jpg", "a.png"))


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DatasetError, match="a.jpg' cannot be read as an image"):
        list(read_yolo(tmp_path, tmp_path, NAMES))


@pytest.mark.parametrize(
    "name, text",
    [
        ("classes.txt", "cup\n\nfork\n"),
        ("data.yaml", "names: [cup, fork]\nnc: 2"),
        ("data.yaml", "names:\n  1: fork\n  0: cup\n"),
        ("train.json", '{"categories": [{"id": 9, "name": "fork"}, {"id": 2, "name": "cup"}]}'),
    ],
)
def test_class_names_are_read_from_the_files_that_tools_write(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == NAMES


@pytest.mark.parametrize(
    "name, text",
    [
        ("classes.txt", "\n"),
        ("classes.txt", "cup\ncup"),
        ("data.yaml", "names: 3"),
        ("data.yaml", "names: {1: cup}"),
        ("data.yaml", "names: [1, 2]"),
        ("data.yaml", "names: !!python/object/apply:os.system [ls]"),
        ("data.yaml", "a: [unclosed"),
        ("a.json", "[]"),
        ("a.json", '{"categories": [{"name": "cup"}]}'),
    ],
)
def test_files_without_class_names_are_refused_by_name(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=name):
        read_class_names(tmp_path / name)


def test_the_class_list_is_found_near_the_labels(tmp_path):
    folder = tmp_path / "labels" / "train"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match="--classes"):
        find_class_list(folder)
    (tmp_path / "data.yaml").write_text("names: [a]")
    assert find_class_list(folder) == tmp_path / "data.yaml"
    (folder / "classes.txt").write_text("a")
    assert find_class_list(folder) == folder / "classes.txt"
