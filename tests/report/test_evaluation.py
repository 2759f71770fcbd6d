import contextlib
import io
from copy import deepcopy

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hybrid_cascade.report import Results
from hybrid_cascade.report.evaluation import MAX_CONFUSED, MAX_CURVES, METRICS, Evaluation

from .random_results import random_results


def pycocotools_evaluation(dataset, detections, task):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = deepcopy(dataset)
        truth.createIndex()
        found = deepcopy(detections)
        if task == "segm":
            found = [{k: v for k, v in d.items() if k != "bbox"} for d in found]
        evaluation = COCOeval(truth, truth.loadRes(found), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_metrics_and_classes_are_those_of_pycocotools(task):
    dataset, detections = random_results(seed=3, num_images=40)
    evaluation = Evaluation(Results.from_coco(dataset, detections), task)
    expected = pycocotools_evaluation(dataset, detections, task)
    metrics = evaluation.metrics()
    assert list(metrics) == list(METRICS)
    for value, stat in zip(metrics.values(), expected.stats, strict=False):
        assert (value is None and stat == -1) or value == pytest.approx(stat, abs=1e-6)
    precision = expected.eval["precision"][..., -1]
    for k, row in enumerate(evaluation.classes()):
        for key, values in (
            ("AP", precision[:, :, k, 0]),
            ("AP50", precision[0, :, k, 0]),
            ("AP75", precision[5, :, k, 0]),
            ("APs", precision[:, :, k, 1]),
            ("APm", precision[:, :, k, 2]),
            ("APl", precision[:, :, k, 3]),
        ):
            values = values[values > -1]
            assert row[key] == (pytest.approx(values.mean(), abs=1e-6) if values.size else None)


def test_objects_and_sizes_do_not_count_crowds():
    dataset, detections = random_results()
    evaluation = Evaluation(Results.from_coco(dataset, detections), "bbox")
    objects = [a for a in dataset["annotations"] if not a["iscrowd"]]
    assert len(objects) < len(dataset["annotations"])
    assert [row["objects"] for row in evaluation.classes()] == [
        sum(a["category_id"] == i for a in objects) for i in (10, 20, 30)
    ]
    assert sum(row["detections"] for row in evaluation.classes()) == len(detections)
    assert evaluation.sizes() == {
        "all": len(objects),
        "small": sum(a["area"] <= 32**2 for a in objects),
        "medium": sum(32**2 <= a["area"] <= 96**2 for a in objects),
        "large": 0,
    }


def test_the_area_below_a_curve_is_the_ap():
    evaluation = Evaluation(Results.from_coco(*random_results()), "segm")
    curves = evaluation.curves()
    mean, *of_classes = curves["classes"]
    metrics = evaluation.metrics()
    assert mean["ap"] == pytest.approx([metrics["AP50"], metrics["AP75"], metrics["AP"]])
    by_name = {row["name"]: row for row in evaluation.classes()}
    assert {c["name"] for c in of_classes} == set(by_name)
    for curve in of_classes:
        row = by_name[curve["name"]]
        assert curve["ap"] == pytest.approx([row["AP50"], row["AP75"], row["AP"]])
        assert [np.mean(line) for line in curve["lines"]] == pytest.approx(curve["ap"], abs=1e-3)


def test_of_many_classes_those_that_matter_most_are_kept():
    names = [f"class {k}" for k in range(MAX_CURVES + 20)]
    dataset, detections = random_results(names=names, num_images=150)
    evaluation = Evaluation(Results.from_coco(dataset, detections), "bbox")
    curves = evaluation.curves()
    assert len(curves["classes"]) == MAX_CURVES + 1
    counts = {row["name"]: row["objects"] for row in evaluation.classes()}
    kept = [counts[c["name"]] for c in curves["classes"][1:]]
    assert min(kept) >= max(
        n for name, n in counts.items() if n and name not in {c["name"] for c in curves["classes"]}
    )
    confusion = evaluation.confusion(0.1)
    assert len(confusion["names"]) == MAX_CONFUSED
    assert np.shape(confusion["matrix"]) == (MAX_CONFUSED + 1, MAX_CONFUSED + 1)
    assert confusion["left_out"] == len(names) - MAX_CONFUSED
    whole = Evaluation(Results.from_coco(dataset, detections), "bbox")._coco.confusion_matrix(
        iou_thr=0.5, min_score=0.1
    )["matrix"]
    places = [names.index(name) for name in confusion["names"]] + [len(names)]
    among = whole[:-1, :-1].astype(int)
    wrong = among.sum(0) + among.sum(1) - 2 * np.diag(among)
    assert wrong[places[:-1]].min() >= np.delete(wrong, places[:-1]).max() > 0
    np.testing.assert_array_equal(confusion["matrix"], whole[np.ix_(places, places)])


def test_confusion_counts_what_objects_are_taken_for():
    box = [10.0, 10.0, 30.0, 30.0]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    dataset = {
        "images": [{"id": 1, "height": 80, "width": 100}],
        "categories": categories,
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 900}],
    }
    found = {"image_id": 1, "category_id": 2, "bbox": box, "score": 0.5}
    evaluation = Evaluation(Results.from_coco(dataset, [found]), "bbox")
    assert evaluation.confusion(0.4)["matrix"] == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert evaluation.confusion(0.6)["matrix"] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_the_best_threshold_has_the_best_f1():
    dataset, detections = random_results(seed=1)
    evaluation = Evaluation(Results.from_coco(dataset, detections), "bbox")
    objects = sum(not a["iscrowd"] for a in dataset["annotations"])
    scores = np.array([d["score"] for d in detections])

    def f1(threshold):
        shown = (scores >= threshold) & (evaluation.is_right >= 0)
        return 2 * (evaluation.is_right[shown] == 1).sum() / (shown.sum() + objects)

    assert f1(evaluation.best_threshold()) == max(f1(s) for s in scores)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_without_detections_nothing_is_found(task):
    dataset, _ = random_results()
    evaluation = Evaluation(Results.from_coco(dataset, []), task)
    assert evaluation.metrics()["AP"] == 0
    assert evaluation.best_threshold() is None
    objects = sum(not a["iscrowd"] for a in dataset["annotations"])
    assert {e["kind"]: e["count"] for e in evaluation.errors()["kinds"]}["Miss"] == objects


def test_without_objects_nothing_is_measured():
    dataset, detections = random_results()
    dataset["annotations"] = []
    evaluation = Evaluation(Results.from_coco(dataset, detections), "bbox")
    assert set(evaluation.metrics().values()) == {None}
    assert {row["AP"] for row in evaluation.classes()} == {None}
    assert evaluation.curves()["classes"] == []
