import base64
import io
import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from PIL import Image

from hybrid_cascade.data import DatasetError
from hybrid_cascade.data.conversion import read_labelme
from hybrid_cascade.predict.result import Result
from hybrid_cascade.predict.writers import write_labelme

from .conftest import masks_of, rectangle


def shape(kind, points, label="cup", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def corners(x1, y1, x2, y2):
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def read(tmp_path, make_images):
    """Read a file with some shapes of an image of 40 x 30 pixels."""

    def read(*shapes, **more):
        root = make_images("a.jpg")
        content = {"imagePath": "../images/a.jpg", "imageWidth": 40, "imageHeight": 30}
        (tmp_path / "labels").mkdir(exist_ok=True)
        text = json.dumps({**content, "shapes": list(shapes), **more})
        (tmp_path / "labels" / "a.json").write_text(text)
        return list(read_labelme(tmp_path / "labels", root))

    return read


def test_each_kind_of_shape_has_its_pixels(read):
    hole = rectangle(0, 0, 8, 8, (8, 8)) - rectangle(2, 2, 5, 5, (8, 8))
    shapes = [
        shape("polygon", corners(3, 4, 13, 10)),
        shape("circle", [[20, 15], [20, 5]]),
        shape("mask", [[30, 20], [37, 27]], mask=png(hole)),
    ]
    [image] = read(*shapes)
    assert (image.file_name, image.width, image.height) == ("a.jpg", 40, 30)
    polygon, circle, mask = masks_of([image])
    np.testing.assert_array_equal(polygon, rectangle(3, 4, 13, 10))
    assert abs(circle.sum() - math.pi * 100) < 10
    np.testing.assert_array_equal(mask[20:28, 30:38], hole)
    assert mask.sum() == hole.sum()
    assert image.instances[2].box == [30, 20, 38, 28]


@pytest.mark.parametrize("points", [[[20, 6], [3, 4]], corners(3, 4, 20, 6)])
def test_a_rectangle_is_a_box_without_a_mask(read, points):
    [image] = read(shape("rectangle", points))
    [instance] = image.instances
    assert instance.box == [3, 4, 20, 6] and instance.mask is None


def test_shapes_of_one_group_and_label_are_one_object(read):
    [image] = read(
        shape("polygon", corners(1, 1, 5, 5), group_id=7),
        shape("polygon", corners(1, 1, 5, 5), label="fork", group_id=7),
        shape("polygon", corners(20, 20, 24, 24), group_id=7),
        shape("polygon", corners(10, 10, 14, 14)),
        shape("polygon", corners(30, 10, 34, 14)),
        shape("rectangle", [[1, 20], [4, 24]], label="spoon", group_id=0),
        shape("mask", [[6, 20], [7, 21]], label="spoon", group_id=0, mask=png(np.ones((2, 2)))),
    )
    assert [x.label for x in image.instances] == ["cup", "fork", "cup", "cup", "spoon"]
    both, _, alone, _, spoon = masks_of([image])
    np.testing.assert_array_equal(both, rectangle(1, 1, 5, 5) + rectangle(20, 20, 24, 24))
    assert image.instances[0].box == [1, 1, 24, 24]
    np.testing.assert_array_equal(alone, rectangle(10, 10, 14, 14))
    np.testing.assert_array_equal(spoon, rectangle(1, 20, 4, 24) + rectangle(6, 20, 8, 22))


def test_what_the_predictor_writes_is_read_again(tmp_path, make_images):
    root = make_images("deep/a.jpg")
    hollow = np.zeros((30, 40), bool)
    hollow[2:9, 3:11] = hollow[20:25, 3:8] = True  # in two pieces
    masks = np.stack([hollow, rectangle(15, 5, 33, 22).astype(bool)])
    instances = Instances(
        (30, 40),
        pred_boxes=Boxes(torch.tensor([[3.0, 2, 11, 25], [15, 5, 33, 22]])),
        scores=torch.tensor([0.9, 0.8]),
        pred_classes=torch.tensor([1, 0]),
        pred_masks=torch.from_numpy(masks),
    )
    image = np.zeros((30, 40, 3), np.uint8)
    names = Metadata(thing_classes=["cup", "fork"])
    write_labelme(Result("deep/a.jpg", image, instances, names), tmp_path, "deep/a.jpg")
    [found] = read_labelme(tmp_path / "labelme", root)
    assert found.file_name == "deep/a.jpg"
    assert [x.label for x in found.instances] == ["fork", "cup"]
    for mask, expected in zip(masks_of([found]), masks, strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "shapes, more, reason",
    [
        ([shape("line", [[1, 1], [2, 2]])], {}, "shape 0 has `shape_type` 'line'"),
        ([shape("polygon", [[1, 1], [2, 2]])], {}, "shape 0 has the points .*at least three"),
        ([shape("polygon", [[1, 1], [2, 2], [math.nan, 3]])], {}, "shape 0 has the points"),
        ([shape("polygon", [[1, 1], [2, 2], [1e300, 3]])], {}, "shape 0 reaches far out"),
        ([shape("circle", [[1, 1], [-1e5, 2]])], {}, "shape 0 reaches far out"),
        ([shape("polygon", "here")], {}, "shape 0 has the points 'here'"),
        ([shape("rectangle", [[1, 1]])], {}, "shape 0 is a rectangle with the points"),
        ([shape("circle", corners(1, 2, 3, 4))], {}, "shape 0 is a circle with"),
        ([shape("mask", [[1, 1], [2, 2]], mask="????")], {}, "shape 0 has a `mask` that can't"),
        ([shape("mask", [[1, 1], [2, 2]])], {}, "shape 0 has a `mask` that can't be read"),
        ([shape("mask", "x", mask=png(np.ones((2, 2))))], {}, "shape 0 has a `mask` that can't"),
        (
            [shape("mask", [[39, 29], [41, 31]], mask=png(np.ones((2, 2))))],
            {},
            "reaches out of the image",
        ),
        ([shape("mask", [[1, 1], [2, 2]], mask=png(np.zeros((2, 2))))], {}, "without a pixel"),
        ([shape("mask", [[1, 1], [2, 2]], mask=png(np.ones((99, 2))))], {}, "2x99 pixels"),
        ([shape("polygon", corners(1, 1, 5, 5), label="")], {}, "shape 0 has `label` ''"),
        ([shape("polygon", corners(1, 1, 5, 5), group_id=[])], {}, r"`group_id` \[\]"),
        (["cup"], {}, "shape 0 is 'cup', and no dict"),
        ([], {"imageWidth": 41}, "width and height 41x30, but the image has 40x30"),
        ([], {"imagePath": "gone.jpg"}, "`imagePath` 'gone.jpg' names an image that is not there"),
        ([], {"imagePath": None}, "`imagePath` None"),
        ([], {"imagePath": "../labels/a.json"}, "outside of the images' folder"),
        ([], {"shapes": None}, "no list `shapes`"),
    ],
)
def test_what_is_broken_is_named_by_file_and_key(read, shapes, more, reason):
    with pytest.raises(DatasetError, match=rf"a.json'.*{reason}"):
        read(*shapes, **more)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "\x00", '{"shapes": []}'])
def test_files_that_are_not_labelmes_are_refused(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(DatasetError, match="b.json' "):
        list(read_labelme(tmp_path, tmp_path))


def test_all_broken_files_are_listed_up_to_ten(tmp_path):
    with pytest.raises(DatasetError, match="has no files"):
        read_labelme(tmp_path, tmp_path)
    for index in range(12):
        (tmp_path / f"{index:02}.json").write_text("{")
    with pytest.raises(DatasetError) as error:
        list(read_labelme(tmp_path, tmp_path))
    lines = str(error.value).splitlines()
    assert len(lines) == 11 and "00.json" in lines[0] and lines[-1] == "… and 2 more"
