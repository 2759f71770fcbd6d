import numpy as np
import pytest

from hybrid_cascade.report import Results, costs
from hybrid_cascade.report.costs import average_precision, image_costs
from hybrid_cascade.report.evaluation import Evaluation

from .random_results import random_results, rle_of


def mended(dataset, detections, evaluation, image_id):
    """The detections, without error in one image."""
    right = evaluation.is_right
    kept = [
        d for d, r in zip(detections, right, strict=True) if d["image_id"] != image_id or r != 0
    ]
    found = set(evaluation.finds.values())
    for number, a in enumerate(dataset["annotations"], start=1):
        if a["image_id"] == image_id and not a["iscrowd"] and number not in found:
            keys = ("image_id", "category_id", "bbox", "segmentation")
            kept.append({**{k: a[k] for k in keys if k in a}, "score": 2.0})
    return kept


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_cost_of_an_image_is_the_ap50_that_it_takes_from_the_whole(task):
    dataset, detections = random_results(seed=0, num_images=16, masks=task == "segm")
    for a in dataset["annotations"]:  # a polygon as detections have it
        if task == "segm" and not a["iscrowd"]:
            a["segmentation"] = rle_of(a["segmentation"][0])
    evaluation = Evaluation(Results.from_coco(dataset, detections), task)
    assert (evaluation.is_right == -1).any()  # on a crowd
    before = evaluation.metrics()["AP50"]
    found = image_costs(evaluation)
    for image, cost in zip(dataset["images"], found, strict=True):
        better = mended(dataset, detections, evaluation, image["id"])
        after = Evaluation(Results.from_coco(dataset, better), task).metrics()["AP50"]
        assert cost == pytest.approx(after - before, abs=1e-9)
    assert (found > 0).sum() > 5


def test_only_the_candidates_have_a_cost(monkeypatch):
    evaluation = Evaluation(Results.from_coco(*random_results()), "bbox")
    everything = image_costs(evaluation)
    monkeypatch.setattr(costs, "MAX_CANDIDATES", 3)
    few = image_costs(evaluation)
    assert (few > 0).sum() == 3
    assert np.isin(few[few > 0], everything).all()


@pytest.mark.parametrize("keep", ["annotations", "detections", None])
def test_there_is_no_cost_without_objects_and_no_failure_without_detections(keep):
    dataset, detections = random_results()
    if keep != "annotations":
        dataset["annotations"] = []
    if keep != "detections":
        detections = []
    found = image_costs(Evaluation(Results.from_coco(dataset, detections), "bbox"))
    assert found.shape == (len(dataset["images"]),)
    assert (found > 0).any() == (keep == "annotations")


def test_average_precision_of_a_perfect_and_of_an_empty_list():
    assert average_precision(np.ones(4, bool), 4) == pytest.approx(1)
    assert average_precision(np.zeros(0, bool), 4) == 0
