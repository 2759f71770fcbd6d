import json

import pytest

from hybrid_cascade.report import Results

from .random_results import random_results


def write(folder, dataset, detections):
    paths = folder / "annotations.json", folder / "results.json"
    for path, value in zip(paths, (dataset, detections), strict=True):
        path.write_text(json.dumps(value))
    return paths


def test_ids_of_images_may_be_texts_and_come_in_any_order(tmp_path):
    dataset, detections = random_results()
    expected = Results.from_coco(dataset, detections)
    for x in (*dataset["annotations"], *detections):
        x["image_id"] = f"{x['image_id']:05}"
    for image in dataset["images"]:
        image["id"] = f"{image['id']:05}"
    dataset["images"].reverse()
    results = Results.load(*write(tmp_path, dataset, detections))
    assert results.detections == expected.detections
    assert results.annotations == expected.annotations
    assert results.image_ids == [f"{i:05}" for i in expected.image_ids]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dataset, found: found[3].update(image_id=77), "detection 3 is of image_id 77"),
        (lambda dataset, found: found[2].update(category_id=3), "detection 2 has category_id 3"),
        (lambda dataset, found: found[1].pop("score"), r"detection 1 lacks \['score'\]"),
        (
            lambda dataset, found: dataset["annotations"][0].update(image_id=5),
            "annotation of id 1 has image_id 5",
        ),
        (
            lambda dataset, found: dataset["annotations"][1].update(category_id=5),
            "annotation of id 2 has category_id 5",
        ),
        (lambda dataset, found: found[0].update(score=float("nan")), "score of detection 0 is nan"),
        (lambda dataset, found: found[4].update(bbox=[1, 2, 3]), r"bbox of detection 4 is \[1, 2"),
        (lambda dataset, found: found[4].update(bbox=["a"] * 4), "bbox of detection 4 is .*finite"),
    ],
)
def test_results_that_do_not_fit_are_refused_with_the_file_and_the_key(tmp_path, change, message):
    dataset, detections = random_results()
    change(dataset, detections)
    with pytest.raises(ValueError, match=rf"results\.json .*annotations\.json.*{message}"):
        Results.load(*write(tmp_path, dataset, detections))


def test_files_of_another_kind_are_refused_by_their_names(tmp_path):
    dataset, detections = random_results()
    annotations, results = write(tmp_path, dataset, detections)
    with pytest.raises(ValueError, match=r"results\.json is no annotation file"):
        Results.load(results, results)
    with pytest.raises(ValueError, match=r"annotations\.json is no results file"):
        Results.load(annotations, annotations)
    results.write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match=r"results\.json is no JSON file"):
        Results.load(annotations, results)


@pytest.mark.parametrize(
    ("truth", "found", "tasks"),
    [(True, True, ["bbox", "segm"]), (False, True, ["bbox"]), (True, False, ["bbox"])],
)
def test_masks_are_measured_where_both_files_have_them(truth, found, tasks):
    dataset = random_results(masks=truth)[0]
    detections = random_results(masks=found)[1]
    assert Results.from_coco(dataset, detections).tasks == tasks


def test_a_part_has_the_objects_and_detections_of_its_images():
    dataset, detections = random_results()
    results = Results.from_coco(dataset, detections)
    part = results.of_images([5, 2])
    assert part.image_ids == [103, 112]
    assert part.image_ids == [results.image_ids[i - 1] for i in (2, 5)]
    for name in ("annotations", "detections"):
        expected = [x for x in getattr(results, name) if x["image_id"] in (2, 5)]
        assert [x["bbox"] for x in getattr(part, name)] == [x["bbox"] for x in expected]
        assert {x["image_id"] for x in getattr(part, name)} == {1, 2}
    other = [{"image_id": 112, "category_id": 10, "bbox": [0, 0, 9, 9], "score": 0.5}]
    assert results.of_images([2, 5], other).detections == [{**other[0], "image_id": 2}]
