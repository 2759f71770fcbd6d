import csv
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from hybrid_cascade.predict import Category
from hybrid_cascade.predict import writers as w

from .test_result import SIZE, make_result

CATEGORIES = [Category(10, "fern"), Category(20, "moss")]


def record(index, image_id=None, with_masks=True):
    result = make_result(with_masks=with_masks)
    image = {"name": f"{index}.jpg", "height": SIZE[0], "width": SIZE[1], "image_id": image_id}
    return {"order": [index, 0], **image, "detections": result.to_records()}


def test_coco_results_have_the_ids_of_images_and_categories(tmp_path):
    w.merge_coco_results([record(0, 7), record(1)], tmp_path / "out.json", CATEGORIES)
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(x["image_id"], x["category_id"]) for x in found] == [
        (7, 20),
        (7, 10),
        (2, 20),
        (2, 10),
    ]
    assert found[0]["bbox"] == [5, 6, 20, 24] and found[0]["score"] == pytest.approx(0.9)
    assert coco_mask.area(found[0]["segmentation"]) == 480
    w.merge_coco_results([], tmp_path / "none.json", CATEGORIES)
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize("with_masks", [True, False])
def test_a_coco_dataset_can_be_read_by_cocos_tools(tmp_path, with_masks, capsys):
    records = [record(i, with_masks=with_masks) for i in range(2)]
    w.merge_coco_dataset(records, tmp_path / "out.json", CATEGORIES)
    coco = COCO(str(tmp_path / "out.json"))
    assert [x["file_name"] for x in coco.loadImgs([1, 2])] == ["0.jpg", "1.jpg"]
    assert coco.getAnnIds() == [1, 2, 3, 4]
    assert coco.loadCats([10, 20]) == [{"id": 10, "name": "fern"}, {"id": 20, "name": "moss"}]
    first = coco.loadAnns([1])[0]
    assert first["iscrowd"] == 0 and first["area"] == 480
    if with_masks:
        assert (coco.annToMask(first).astype(bool) == make_result().masks[0]).all()
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_a_coco_dataset_without_detections_is_valid(tmp_path):
    nothing = {**record(0), "detections": []}
    w.merge_coco_dataset([nothing, nothing], tmp_path / "out.json", CATEGORIES)
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["images"]) == 2 and found["annotations"] == []


def test_a_table_has_a_row_for_each_detection(tmp_path):
    w.merge_csv([record(0)], tmp_path / "out.csv", CATEGORIES)
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["class"] for row in rows] == ["moss", "fern"]
    assert [float(rows[0][key]) for key in ("x1", "y1", "x2", "y2", "area")] == [5, 6, 25, 30, 480]


def test_mask_images_have_the_numbers_of_the_instances(tmp_path):
    result = make_result()
    result.instances.pred_masks[1, 10:12, 10:12] = True  # under the first one
    w.write_masks(result, tmp_path, "inner/photo.jpg")
    path = str(tmp_path / "masks" / "inner" / "photo.jpg.png")
    numbers = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    assert numbers.dtype == np.uint16 and ((numbers == 1) == result.masks[0]).all()
    assert ((numbers == 2) == (result.masks[1] & ~result.masks[0])).all()
    w.write_masks(make_result(with_masks=False), tmp_path, "boxes.jpg")
    numbers = cv2.imread(str(tmp_path / "masks" / "boxes.jpg.png"), cv2.IMREAD_UNCHANGED)
    assert (numbers[6:30, 5:25] == 1).all()


def test_labelme_has_a_shape_for_each_piece(tmp_path):
    w.write_labelme(make_result(), tmp_path, "photo.jpg")
    found = json.loads((tmp_path / "labelme" / "photo.jpg.json").read_text())
    assert [(s["label"], s["group_id"]) for s in found["shapes"]] == [
        ("moss", 0),
        ("fern", 1),
        ("fern", 1),
    ]
    assert (found["imageHeight"], found["imageWidth"]) == SIZE
    x, y = np.array(found["shapes"][0]["points"]).T
    assert [x.min(), y.min(), x.max(), y.max()] == pytest.approx([5, 6, 25, 30], abs=0.2)
    w.write_labelme(make_result(with_masks=False), tmp_path, "boxes.jpg")
    found = json.loads((tmp_path / "labelme" / "boxes.jpg.json").read_text())
    assert found["shapes"][0]["shape_type"] == "rectangle"
    assert found["shapes"][0]["points"] == [[5, 6], [25, 30]]


def test_yolo_has_a_line_for_each_instance_in_fractions_of_the_image(tmp_path):
    w.write_yolo(make_result(), tmp_path, "photo.jpg")
    lines = (tmp_path / "yolo" / "photo.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0"]
    x, y = np.array(lines[1].split()[1:], float).reshape(-1, 2).T
    # The larger piece of the second instance.
    expected = [45 / 60, 2 / 40, 55 / 60, 20 / 40]
    assert [x.min(), y.min(), x.max(), y.max()] == pytest.approx(expected, abs=0.005)
    w.write_yolo(make_result(with_masks=False), tmp_path, "boxes.jpg")
    first = (tmp_path / "yolo" / "boxes.txt").read_text().splitlines()[0]
    values = [float(x) for x in first.split()]
    assert values == pytest.approx([1, 15 / 60, 18 / 40, 20 / 60, 24 / 40], abs=1e-5)


def test_drawings_keep_the_name_of_their_image(tmp_path):
    w.write_drawing(make_result(), tmp_path, "inner/photo.jpg")
    w.write_drawing(make_result(), tmp_path, "clip.mp4#000001")
    assert cv2.imread(str(tmp_path / "drawings" / "inner" / "photo.jpg")).shape == (*SIZE, 3)
    assert (tmp_path / "drawings" / "clip.mp4#000001.png").exists()
