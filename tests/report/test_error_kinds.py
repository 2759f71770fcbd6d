from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hybrid_cascade.report import Results
from hybrid_cascade.report.error_kinds import as_rle, find_errors
from hybrid_cascade.report.evaluation import Evaluation

from .random_results import polygon_of, random_results, rle_of


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_the_kinds_are_as_many_as_hotcoco_counts(task, seed):
    results = Results.from_coco(*random_results(seed, num_images=40))
    evaluation = Evaluation(results, task)
    errors = find_errors(evaluation, task, [image["id"] for image in results.images])
    counts = Counter(kind for e in errors for kind in e.kinds)
    counts["Miss"] = sum(e.missed.sum() for e in errors)
    expected = {row["kind"]: row["count"] for row in evaluation.errors()["kinds"]}
    assert min(expected.values()) > 0
    assert {kind: counts[kind] for kind in expected} == expected
    assert sum(len(e.detections) for e in errors) == len(results.detections)


def test_each_kind_is_what_its_name_says():
    objects = [(1, [10, 10, 30, 30]), (2, [60, 10, 30, 30]), (1, [10, 55, 20, 20])]
    found = [
        (1, [10, 10, 30, 30], 0.9, "right", 1.0),
        (1, [11, 10, 30, 30], 0.8, "Dupe", 29 / 31),
        (1, [60, 10, 30, 30], 0.7, "Cls", 1.0),
        (2, [75, 10, 30, 30], 0.6, "Loc", 1 / 3),
        (2, [25, 55, 20, 20], 0.5, "Both", 1 / 7),
        (1, [80, 60, 10, 10], 0.4, "Bkg", 0.0),
    ]
    dataset = {
        "images": [{"id": 1, "height": 80, "width": 100}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": c, "bbox": b, "area": b[2] * b[3]}
            for i, (c, b) in enumerate(objects)
        ],
    }
    detections = [{"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s, *_ in found]
    evaluation = Evaluation(Results.from_coco(dataset, detections[::-1]), "bbox")
    [errors] = find_errors(evaluation, "bbox", [1])
    assert errors.kinds == [kind for *_, kind, _ in found]
    assert errors.ious == pytest.approx([iou for *_, iou in found])
    assert errors.found.tolist() == [0.9, 0, 0]
    assert errors.missed.tolist() == [False, False, True]


def test_masks_of_any_form_are_the_same_mask():
    polygon = polygon_of([10.0, 12.0, 30.0, 20.0])
    expected = rle_of(polygon)
    uncompressed = {"size": [2, 3], "counts": [1, 2, 3]}
    assert as_rle([polygon], (80, 100))["counts"].decode() == expected["counts"]
    assert as_rle(expected, (80, 100)) == expected
    np.testing.assert_array_equal(
        coco_mask.decode(as_rle(uncompressed, (2, 3))), [[0, 1, 0], [1, 0, 0]]
    )
    for nothing in (None, [], [[1, 1, 2, 2]]):
        assert coco_mask.decode(as_rle(nothing, (4, 5))).tolist() == np.zeros((4, 5)).tolist()
