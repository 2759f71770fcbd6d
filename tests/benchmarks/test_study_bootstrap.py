import json

import hotcoco
import numpy as np
import pytest
import study_bootstrap

NUM_IMAGES, NUM_CLASSES = 12, 3


@pytest.fixture(scope="module")
def dataset() -> tuple[dict, list[dict]]:
    """Return annotations, a crowd among them, and detections that are right, wrong and doubled."""
    random = np.random.default_rng(0)
    annotations, detections = [], []
    for image_id in range(1, NUM_IMAGES + 1):
        for _ in range(random.integers(0, 6)):
            box = [*random.uniform(0, 60, 2), *random.uniform(8, 40, 2)]
            label = int(random.integers(1, NUM_CLASSES + 1))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(random.random() < 0.1),
                }
            )
            for _ in range(random.integers(0, 4)):
                moved = np.add(box, random.normal(0, 3, 4)).clip(1).tolist()
                guess = label if random.random() < 0.8 else label % NUM_CLASSES + 1
                detections.append(
                    {
                        "image_id": image_id,
                        "category_id": guess,
                        "bbox": moved,
                        "score": float(random.random()),
                    }
                )
    images = [{"id": i + 1, "width": 100, "height": 100, "file_name": ""} for i in range(12)]
    categories = [{"id": k + 1, "name": str(k)} for k in range(NUM_CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def hotcoco_ap(path, dataset: dict, detections: list[dict]) -> float:
    path.write_text(json.dumps(dataset))
    ground_truth = hotcoco.COCO(str(path))
    evaluation = hotcoco.COCOeval(ground_truth, ground_truth.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()
    return 100 * evaluation.get_results()["AP"]


def test_the_first_value_is_the_ap_of_all_images(dataset, tmp_path):
    annotations, detections = dataset
    expected = hotcoco_ap(tmp_path / "a.json", annotations, detections)
    matched = study_bootstrap.match(str(tmp_path / "a.json"), detections, "bbox")
    found = study_bootstrap.bootstrap_ap(matched)
    assert 10 < expected < 90
    assert found[0] == pytest.approx(expected, abs=0.006)
    assert len(found) == 1 + study_bootstrap.REPLICATES


@pytest.mark.parametrize("replicate", [0, 7])
def test_a_replicate_is_the_ap_of_a_dataset_with_its_images_repeated(dataset, tmp_path, replicate):
    annotations, detections = dataset
    images, repeated, found = [], [], []
    for image_id, times in enumerate(study_bootstrap.draws(NUM_IMAGES)[replicate], start=1):
        for _ in range(times):
            new = {"image_id": len(images) + 1}
            images.append({**annotations["images"][0], "id": new["image_id"]})
            repeated += [a | new for a in annotations["annotations"] if a["image_id"] == image_id]
            found += [d | new for d in detections if d["image_id"] == image_id]
    repeated = [a | {"id": i} for i, a in enumerate(repeated, start=1)]
    drawn = annotations | {"images": images, "annotations": repeated}
    expected = hotcoco_ap(tmp_path / "drawn.json", drawn, found)
    (tmp_path / "all.json").write_text(json.dumps(annotations))
    matched = study_bootstrap.match(str(tmp_path / "all.json"), detections, "bbox")
    aps = study_bootstrap.bootstrap_ap(matched)
    assert aps[1 + replicate] == pytest.approx(expected, abs=0.006)
    assert aps[1 + replicate] != pytest.approx(aps[0], abs=0.5)


def test_detections_of_objects_that_do_not_count_are_neither_right_nor_wrong(dataset, tmp_path):
    annotations, _ = dataset
    boxes = {"first": [0, 0, 20, 20], "second": [50, 0, 20, 20], "nothing": [0, 60, 20, 20]}
    common = {"image_id": 1, "category_id": 1}
    objects = [
        common | {"id": number, "bbox": boxes[name], "area": 400, "iscrowd": 0}
        for number, name in [(7, "first"), (8, "second")]
    ]
    detections = [
        common | {"bbox": boxes[name], "score": score}
        for name, score in [("first", 0.9), ("nothing", 0.8), ("second", 0.7)]
    ]
    (tmp_path / "two.json").write_text(json.dumps(annotations | {"annotations": objects}))
    matched = study_bootstrap.match(str(tmp_path / "two.json"), detections, "bbox")
    assert study_bootstrap.ap_of_objects(matched, {7}) == 100
    assert study_bootstrap.ap_of_objects(matched, {8}) == 50  # after the wrong one
    assert np.isnan(study_bootstrap.ap_of_objects(matched, set()))
    both = study_bootstrap.ap_of_objects(matched, {7, 8})
    assert both == study_bootstrap.bootstrap_ap(matched)[0] == pytest.approx(83.5, abs=0.1)


def test_all_models_get_the_same_draws():
    first = study_bootstrap.draws(20)
    assert (first == study_bootstrap.draws(20)).all()
    assert (first.sum(axis=1) == 20).all()
    assert len(np.unique(first, axis=0)) == study_bootstrap.REPLICATES
