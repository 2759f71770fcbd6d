import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from PIL import Image

from hybrid_cascade.report import ModelOfReport, Results, build_report
from hybrid_cascade.report.evaluation import Evaluation
from hybrid_cascade.report.gallery import MAX_DETECTIONS, MIN_SCORE

from ..visualization.fake_cascade import FakeCascade
from .random_results import random_results


def test_the_costliest_images_come_first():
    results = Results.from_coco(*random_results())
    contents = build_report(results, num_images=5)
    costs = [image["cost"] for image in contents["gallery"]["images"]]
    assert len(costs) == 5
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 0
    every = build_report(results, num_images=100)["gallery"]["images"]
    assert len(every) == len(results.images)
    assert costs == [image["cost"] for image in every[:5]]


def test_an_image_has_its_picture_its_objects_and_its_detections(tmp_path):
    dataset, detections = random_results()
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(path)
    files = {image["id"]: str(path) for image in dataset["images"][:6]}
    contents = build_report(Results.from_coco(dataset, detections), image_files=files)
    for image in contents["gallery"]["images"]:
        [of_file] = [x for x in dataset["images"] if x["file_name"] == image["file"]]
        assert (image["uri"] is not None) == (of_file["id"] in files)
        annotations = [a for a in dataset["annotations"] if a["image_id"] == of_file["id"]]
        assert [x["crowd"] for x in image["objects"]] == [a["iscrowd"] for a in annotations]
        for shape, annotation in zip(image["objects"], annotations, strict=True):
            assert shape["box"] == pytest.approx(annotation["bbox"], abs=0.06)
            assert shape["path"].startswith("M")
            assert (
                contents["names"][shape["class"]]
                == ("ball", "tent", "kite")[annotation["category_id"] // 10 - 1]
            )
        [frame] = image["frames"]
        scores = sorted(d["score"] for d in detections if d["image_id"] == of_file["id"])[::-1]
        kept = [round(s, 3) for s in scores if s >= MIN_SCORE]
        assert [d["score"] for d in frame["detections"]] == kept
        assert frame["left_out"] == len(scores) - len(kept)


def test_the_page_has_the_best_detections_of_an_image_alone():
    dataset, detections = random_results(num_images=2)
    many = [{**detections[-1], "score": 0.9 - 0.01 * k} for k in range(MAX_DETECTIONS + 5)]
    contents = build_report(Results.from_coco(dataset, many))
    frame = contents["gallery"]["images"][0]["frames"][0]
    assert [d["score"] for d in frame["detections"]] == [
        round(0.9 - 0.01 * k, 3) for k in range(MAX_DETECTIONS)
    ]
    assert frame["left_out"] == 5


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("names", [("one",), ("a", "b", "c")])
@pytest.mark.parametrize("without", ["nothing", "detections", "objects", "both", "images"])
def test_it_is_plain_values_whatever_there_is(masks, names, without):
    dataset, detections = random_results(masks=masks, names=names)
    if without in ("objects", "both", "images"):
        dataset["annotations"] = []
    if without in ("detections", "both", "images"):
        detections = []
    if without == "images":
        dataset["images"] = []
    contents = build_report(Results.from_coco(dataset, detections))
    assert json.loads(json.dumps(contents, allow_nan=False)) == contents
    assert contents["stages"] is None


def test_results_without_sizes_of_images_are_shown():
    dataset, detections = random_results(masks=False)
    for image in dataset["images"]:
        del image["width"], image["height"]
    contents = build_report(Results.from_coco(dataset, detections))
    assert {(x["width"], x["height"]) for x in contents["gallery"]["images"]} == {(0, 0)}


def model_of(dataset, num_stages=3, num_labels=0):
    metadata = Metadata(
        thing_dataset_id_to_contiguous_id={10: 0, 20: 1, 30: 2},
        thing_classes=["ball", "tent", "kite"],
        stuff_classes=["sand", "sky", "water", "grass"],
    )
    return ModelOfReport(
        FakeCascade(num_stages, num_labels=num_labels),
        lambda image: {"image": torch.zeros(3, 80, 100), "height": 80, "width": 100},
        {image["id"]: image for image in dataset["images"]},
        metadata,
    )


def test_the_slider_goes_through_the_stages_to_the_results():
    dataset, detections = random_results()
    contents = build_report(
        Results.from_coco(dataset, detections), model=model_of(dataset), num_images=4
    )
    for image in contents["gallery"]["images"]:
        titles = [frame["title"] for frame in image["frames"]]
        assert titles == [*(f"after stage {t} (IoU 0.{4 + t})" for t in (1, 2, 3)), "results"]
        for stage, frame in enumerate(image["frames"][:3]):
            [detection] = frame["detections"]
            assert detection["class"] == stage
            assert detection["score"] == 0.9
            assert detection["box"] == [10, 16, 40, 48]
        assert all(len(x["found"]) == 4 for x in image["objects"])


def test_the_last_stage_is_the_results_where_both_are_the_same():
    dataset, _ = random_results()
    model = model_of(dataset)
    found = [
        {"image_id": i["id"], "category_id": 30, "bbox": [10, 16, 40, 48], "score": 0.9}
        for i in dataset["images"]
    ]
    contents = build_report(Results.from_coco(dataset, found), model=model)
    assert [frame["title"] for frame in contents["gallery"]["images"][0]["frames"]] == [
        f"after stage {t} (IoU 0.{4 + t})" for t in (1, 2, 3)
    ]


def test_ap_by_stage_is_that_of_the_detections_of_each_stage_on_the_sampled_images():
    dataset, detections = random_results()
    results = Results.from_coco(dataset, detections)
    for number, places in ((5, [0, 3, 6, 9, 13]), (100, range(14))):
        contents = build_report(
            results, model=model_of(dataset, num_stages=2), num_images=2, num_stage_images=number
        )
        ids = [dataset["images"][k]["id"] for k in places]
        part = deepcopy(dataset)
        for key, name in (("images", "id"), ("annotations", "image_id")):
            part[key] = [x for x in part[key] if x[name] in ids]
        assert contents["stages"]["images"] == len(ids)
        for stage, row in enumerate(contents["stages"]["rows"]):
            found = [
                {
                    "image_id": i,
                    "category_id": 10 * (stage + 1),
                    "bbox": [10, 16, 40, 48],
                    "score": 0.9,
                }
                for i in ids
            ]
            expected = Evaluation(Results.from_coco(part, found), "bbox").metrics()
            assert row["bbox"] == pytest.approx(expected)


def test_no_images_for_the_stages_means_no_measures_by_stage():
    dataset, detections = random_results()
    results = Results.from_coco(dataset, detections)
    contents = build_report(results, model=model_of(dataset), num_images=0, num_stage_images=0)
    assert contents["stages"] is None
    assert contents["gallery"]["images"] == []


def test_the_semantic_prediction_has_a_legend():
    dataset, detections = random_results()
    results = Results.from_coco(dataset, detections)
    model = model_of(dataset, num_labels=4)
    gallery = build_report(results, model=model, num_images=3)["gallery"]
    assert all(image["sem_seg"].startswith("data:image/png") for image in gallery["images"])
    assert {name for name, _ in gallery["legend"]} <= {"sand", "sky", "water", "grass"}
    assert gallery["legend"]


def test_the_curves_of_the_training_and_the_config_are_in_it(tmp_path):
    lines = [{"iteration": i, "total_loss": 9.0 - i, "lr": 0.1} for i in range(5)]
    lines.append({"iteration": 5, "total_loss": float("nan"), "lr": 0.1})
    path = tmp_path / "metrics.json"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    results = Results.from_coco(*random_results())
    contents = build_report(results, metrics_json=path, config="a: 1")
    assert contents["config"] == "a: 1"
    curves = {plot["title"]: plot["lines"] for plot in contents["training"]}
    assert curves["total loss"][0]["points"] == [[i, 9.0 - i] for i in range(5)]
    assert list(curves) == ["total loss", "learning rate"]
    path.write_text("no metrics")
    assert build_report(results, metrics_json=path)["training"] == []
    assert build_report(results, metrics_json=tmp_path / "none.json")["training"] == []


def test_a_stage_that_finds_nothing_has_an_ap_of_masks_too():
    dataset, detections = random_results()
    model = model_of(dataset)
    model.model.roi_heads.stages_that_find = 2
    rows = build_report(Results.from_coco(dataset, detections), model=model)["stages"]["rows"]
    assert [set(row) for row in rows] == [{"name", "bbox", "segm"}] * 3
    assert rows[2]["segm"]["AP"] == 0


def test_a_model_of_boxes_is_compared_with_results_of_masks():
    dataset, detections = random_results()
    model = model_of(dataset)
    model.model.roi_heads.masks = False
    contents = build_report(Results.from_coco(dataset, detections), model=model)
    assert [set(row) for row in contents["stages"]["rows"]] == [{"name", "bbox"}] * 3
    titles = [frame["title"] for frame in contents["gallery"]["images"][0]["frames"]]
    assert titles[-1] == "results" and len(titles) == 4
