import json
import sys

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from hybrid_cascade.predict import Result

SIZE = (40, 60)


def make_result(name="photo.jpg", with_masks=True, names=("fern", "moss")):
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.tensor([[5.0, 6, 25, 30], [30, 2, 55, 20]]))
    instances.scores = torch.tensor([0.9, 0.6])
    instances.pred_classes = torch.tensor([1, 0])
    if with_masks:
        masks = torch.zeros(2, *SIZE, dtype=torch.bool)
        masks[0, 6:30, 5:25] = True
        masks[1, 2:20, 30:38] = masks[1, 2:20, 45:55] = True  # in two pieces
        instances.pred_masks = masks
    image = np.full((*SIZE, 3), (200, 40, 10), np.uint8)
    return Result(name, image, instances, Metadata(thing_classes=list(names)))


def test_boxes_scores_names_and_masks_are_those_of_the_instances():
    result = make_result()
    assert len(result) == 2
    assert result.boxes.tolist() == [[5, 6, 25, 30], [30, 2, 55, 20]]
    assert result.scores.tolist() == pytest.approx([0.9, 0.6])
    assert result.class_names == ["moss", "fern"]
    assert result.masks.shape == (2, *SIZE) and result.masks.dtype == bool


def test_run_lengths_are_the_masks():
    result = make_result()
    assert (coco_mask.decode(result.rle()[1]).astype(bool) == result.masks[1]).all()
    json.dumps(result.rle())


def test_polygons_cover_the_masks_piece_by_piece():
    result = make_result()
    polygons = result.polygons()
    assert [len(p) for p in polygons] == [1, 2]
    for mask, pieces in zip(result.masks, polygons, strict=True):
        filled = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(pieces, *SIZE)))
        assert (filled.astype(bool) == mask).all()


def test_masks_of_few_pixels_and_of_none_have_polygons_that_fit():
    result = make_result()
    result.instances.pred_masks.zero_()
    result.instances.pred_masks[0, 3, 7] = True
    [[pixel], nothing] = result.polygons()
    assert nothing == []
    x, y = np.array(pixel).reshape(-1, 2).T
    assert 7 <= x.min() < x.max() <= 8 and 3 <= y.min() < y.max() <= 4


def test_cocos_results_have_width_and_height():
    first = make_result().to_coco(7)[0]
    assert first["image_id"] == 7 and first["category_id"] == 1
    assert first["bbox"] == [5, 6, 20, 24] and first["segmentation"]["size"] == list(SIZE)


def test_without_masks_there_are_none():
    result = make_result(with_masks=False)
    assert result.masks is result.rle() is result.polygons() is None
    assert "segmentation" not in result.to_coco("photo")[0]
    assert result.draw().shape == (*SIZE, 3)


def test_a_class_without_a_name_has_a_number():
    assert make_result(names=()).class_names == ["class 1", "class 0"]


def test_the_drawing_keeps_the_colors_of_the_image():
    drawing = make_result().draw()
    assert abs(drawing[38, 2].astype(int) - (200, 40, 10)).max() <= 2
    assert (drawing[10:25, 8:22] != (200, 40, 10)).any()


def test_saving_writes_a_drawing_and_the_detections(tmp_path):
    path = make_result("somewhere/photo.jpg").save(tmp_path / "out")
    assert path == tmp_path / "out" / "photo.jpg"
    assert cv2.imread(str(path)).shape == (*SIZE, 3)
    found = json.loads((tmp_path / "out" / "photo.jpg.json").read_text())
    assert [x["class_name"] for x in found] == ["moss", "fern"]
    assert found[0]["image_id"] == "somewhere/photo.jpg"
    assert make_result("clip.mp4#000003").save(tmp_path).name == "clip.mp4#000003.png"


def test_a_drawing_does_not_replace_its_image(tmp_path):
    with pytest.raises(ValueError, match="take another folder"):
        make_result(str(tmp_path / "photo.jpg")).save(tmp_path)


def test_without_supervision_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        make_result().to_supervision()


def test_supervision_gets_boxes_masks_scores_and_names():
    pytest.importorskip("supervision", reason="pip install supervision")
    detections = make_result().to_supervision()
    assert len(detections) == 2 and detections.class_id.tolist() == [1, 0]
    assert detections.mask.shape == (2, *SIZE)
    assert detections.data["class_name"].tolist() == ["moss", "fern"]


def test_a_missing_supervision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        make_result().to_supervision()
