import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from hybrid_cascade.data import register_coco_json
from hybrid_cascade.evaluation import FastCOCOEvaluator
from hybrid_cascade.evaluation.precision_recall import (
    load_precision_recall,
    measure_precision_recall,
)

SIZE = (60, 80)
CATEGORY_IDS = (3, 7, 90, 4)  # of the last, there is no object


def make_dataset(folder, num_images, seed=0):
    """Write annotations of rectangles, some of them crowds; return the file."""
    (folder / "x.png").touch()
    random = np.random.default_rng(seed)
    images, annotations = [], []
    for image_id in range(5, 5 + num_images):
        height, width = SIZE
        images.append({"id": image_id, "height": height, "width": width, "file_name": "x.png"})
        for _ in range(random.integers(0, 6)):
            x, y = random.integers(0, 40, 2).tolist()
            w, h = random.integers(3, 20, 2).tolist()
            annotation = {"image_id": image_id, "iscrowd": int(random.random() < 0.1)}
            annotation |= {"id": len(annotations) + 1, "bbox": [x, y, w, h], "area": w * h}
            annotation["category_id"] = CATEGORY_IDS[random.integers(0, 3)]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(annotation)
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in CATEGORY_IDS]
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def detect(dataset, seed=1, with_masks=True):
    """Return inputs and outputs of a model that finds objects roughly, with equal scores too."""
    random = np.random.default_rng(seed)
    for image in dataset:
        boxes = [np.array(a["bbox"]) for a in image["annotations"] for _ in range(2)]
        boxes = np.array([b + random.normal(0, 1.5, 4) for b in boxes]).reshape(-1, 4)
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clip(1)
        found = Instances(SIZE, pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
        found.scores = torch.tensor(random.random(len(boxes)).round(1))
        labels = [a["category_id"] for a in image["annotations"] for _ in range(2)]
        wrong = random.integers(0, 4, len(labels))
        labels = np.where(random.random(len(labels)) < 0.8, labels, wrong)
        found.pred_classes = torch.tensor(labels, dtype=torch.long)
        if with_masks:
            masks = torch.zeros((len(boxes), *SIZE), dtype=torch.bool)
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.clip(0).astype(int), strict=True):
                mask[y1:y2, x1:x2] = True
            found.pred_masks = masks
        yield [{"image_id": image["image_id"]}], [{"instances": found}]


@pytest.fixture
def dataset(tmp_path):
    register_coco_json("measured_fast", str(make_dataset(tmp_path, 40)), str(tmp_path))
    yield DatasetCatalog.get("measured_fast")
    DatasetCatalog.remove("measured_fast")
    MetadataCatalog.remove("measured_fast")


def measure(kind, pairs, folder, img_ids=None, **options):
    evaluator = kind("measured_fast", distributed=False, output_dir=str(folder), **options)
    evaluator.reset()
    for inputs, outputs in pairs:
        evaluator.process(inputs, outputs)
    return evaluator.evaluate(img_ids), (folder / "coco_instances_results.json").read_text()


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"max_dets_per_image": 3}, {"max_dets_per_image": 20}, {"img_ids": [7, 8, 9, 21]}],
)
def test_figures_and_files_are_those_of_pycocotools(dataset, tmp_path, with_masks, options):
    fast, expected = (
        measure(kind, detect(dataset, with_masks=with_masks), tmp_path, **options)
        for kind in (FastCOCOEvaluator, COCOEvaluator)
    )
    assert list(fast[0]) == list(expected[0]) == ["bbox", "segm"][: 1 + with_masks]
    for task, metrics in expected[0].items():
        assert 5 < metrics["AP"] < 95 and list(fast[0][task]) == list(metrics)
        for name, value in metrics.items():
            assert fast[0][task][name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert json.loads(fast[1]) == json.loads(expected[1])


def test_pycocotools_measures_on_request_and_where_hotcoco_is_missing(
    dataset, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)  # for caplog
    pairs = list(detect(dataset))
    fast, _ = measure(FastCOCOEvaluator, pairs, tmp_path)
    monkeypatch.setattr("hybrid_cascade.evaluation.fast_coco.hotcoco", None)
    for options in ({"use_fast_impl": False}, {}):
        assert "pip install hotcoco" not in caplog.text
        slow, _ = measure(FastCOCOEvaluator, pairs, tmp_path, **options)
        assert slow["segm"]["AP"] == pytest.approx(fast["segm"]["AP"])
    assert "pip install hotcoco" in caplog.text


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_precision_over_recall_is_saved_as_an_evaluation_of_the_results_finds_it(
    dataset, tmp_path, use_fast_impl
):
    measure(FastCOCOEvaluator, detect(dataset), tmp_path, use_fast_impl=use_fast_impl)
    saved = load_precision_recall(tmp_path)
    expected = measure_precision_recall(
        tmp_path / "val.json", tmp_path / "coco_instances_results.json"
    )
    assert list(saved) == list(expected) == ["bbox", "segm"]
    for task, found in saved.items():
        assert list(found.class_names) == [f"class {i}" for i in sorted(CATEGORY_IDS)]
        for name in ("precision", "ious", "recalls"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected[task], name))


def test_precision_over_recall_has_the_limit_and_the_images_of_the_evaluation(dataset, tmp_path):
    options = {"max_dets_per_image": 3, "img_ids": [7, 8, 9, 21]}
    metrics, _ = measure(FastCOCOEvaluator, detect(dataset), tmp_path, **options)
    precision = load_precision_recall(tmp_path)["segm"].precision
    assert 100 * precision[precision > -1].mean() == pytest.approx(metrics["segm"]["AP"])


def test_what_an_evaluation_before_has_saved_is_not_taken_for_that_of_the_results(
    dataset, tmp_path
):
    measure(FastCOCOEvaluator, detect(dataset), tmp_path)
    measure(FastCOCOEvaluator, detect(dataset, with_masks=False), tmp_path)
    assert list(load_precision_recall(tmp_path)) == ["bbox"]
    measure(COCOEvaluator, detect(dataset), tmp_path)
    assert load_precision_recall(tmp_path) == {}


def test_no_detections_are_no_error(dataset, tmp_path):
    nothing = [
        (inputs, [{"instances": outputs[0]["instances"][:0]}])
        for inputs, outputs in detect(dataset)
    ]
    results, written = measure(FastCOCOEvaluator, nothing, tmp_path)
    assert json.loads(written) == [] and np.isnan(results["bbox"]["AP"])
    assert load_precision_recall(tmp_path) == {}
