import json

import pycocotools.mask as mask_util
import pytest
from PIL import Image

from hybrid_cascade.visualization import plot_precision_recall


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


@pytest.fixture
def json_file(tmp_path):
    """One image with two cups and no fork."""
    annotations = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 1,
            "bbox": [40 * i, 0, 20, 20],
            "segmentation": [square(40 * i, 0, 20)],
            "area": 400,
            "iscrowd": 0,
        }
        for i in (1, 2)
    ]
    path = tmp_path / "instances.json"
    path.write_text(
        json.dumps(
            {
                "info": {},
                "images": [{"id": 1, "height": 100, "width": 200}],
                "annotations": annotations,
                "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}],
            }
        )
    )
    return path


def plot(tmp_path, json_file, results):
    (tmp_path / "results.json").write_text(json.dumps(results))
    plot_precision_recall(json_file, tmp_path / "results.json", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 400


def found(x, side=20, score=0.9):
    return {"image_id": 1, "category_id": 1, "bbox": [x, 0, side, side], "score": score}


def labels(axes):
    return [line.get_label() for line in axes.lines]


def test_curves_have_coco_eval_precision(tmp_path, json_file, figures, capsys):
    # One cup exactly, the other not at all: half of the recall at full precision, at every IoU.
    plot(tmp_path, json_file, [found(40)])
    (axes,) = figures[0].axes
    assert axes.get_title() == "boxes"
    assert labels(axes) == [
        "mean at IoU 0.5: AP 50.5",
        "mean at IoU 0.75: AP 50.5",
        "mean over IoU 0.5:0.95: AP 50.5",
        "cup at IoU 0.5: AP 50.5",
    ]
    recall, precision = axes.lines[0].get_data()
    assert precision == pytest.approx((recall <= 0.5).astype(float))
    assert capsys.readouterr().out == ""


def test_iou_thresholds_differ(tmp_path, json_file, figures):
    # 16 x 16 in 20 x 20 pixels: IoU 0.64, a hit at three of ten thresholds.
    plot(tmp_path, json_file, [found(40, side=16), found(80, side=16)])
    assert labels(figures[0].axes[0])[:3] == [
        "mean at IoU 0.5: AP 100.0",
        "mean at IoU 0.75: AP 0.0",
        "mean over IoU 0.5:0.95: AP 30.0",
    ]


def test_masks_have_their_own_curves(tmp_path, json_file, figures):
    result = found(40)
    (rle,) = mask_util.frPyObjects([square(40, 0, 10)], 100, 200)  # a quarter of the object
    result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    plot(tmp_path, json_file, [result])
    boxes, masks = figures[0].axes
    assert masks.get_title() == "masks"
    assert labels(boxes)[0] == "mean at IoU 0.5: AP 50.5"
    assert labels(masks)[0] == "mean at IoU 0.5: AP 0.0"


def test_no_detections_are_said_in_the_picture(tmp_path, json_file, figures):
    plot(tmp_path, json_file, [])
    (axes,) = figures[0].axes
    assert [t.get_text() for t in axes.texts] == ["no detections"]


def test_no_annotations_are_said_in_the_picture(tmp_path, json_file, figures):
    dataset = json.loads(json_file.read_text())
    json_file.write_text(json.dumps({**dataset, "annotations": []}))
    plot(tmp_path, json_file, [found(40)])
    assert [t.get_text() for t in figures[0].axes[0].texts] == ["no annotated objects"]


def test_results_of_other_images_are_an_error_that_names_both_files(tmp_path, json_file):
    with pytest.raises(ValueError, match="results.json has image_id 7, .*instances.json does not"):
        plot(tmp_path, json_file, [{**found(40), "image_id": 7}])
