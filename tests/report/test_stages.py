import torch
from detectron2.data import Metadata

from hybrid_cascade.report.stages import ModelOfReport, run_stages

from ..visualization.fake_cascade import FakeCascade


def source_of(model, ids=("a", "b", "c")):
    seen = []

    def mapper(dataset_dict):
        seen.append(dataset_dict["image_id"])
        return {"image": torch.zeros(3, 60, 80), "height": 30, "width": 40}

    metadata = Metadata(thing_dataset_id_to_contiguous_id={7: 0, 9: 1, 20: 2})
    dataset = {i: {"image_id": i} for i in ids}
    return ModelOfReport(model, mapper, dataset, metadata), seen


def test_each_stage_detects_in_all_images_with_the_ids_of_the_files():
    source, seen = source_of(FakeCascade(num_stages=3, stages_that_find=2))
    found = run_stages(source, sampled=["b", "a"], shown=["b", "c"])
    assert seen == ["b", "c", "a"]
    assert found.titles == [f"after stage {t} (IoU 0.{4 + t})" for t in (1, 2, 3)]
    first, second, third = found.detections
    assert third == []
    for detections, category in ((first, 7), (second, 9)):
        assert [d["image_id"] for d in detections] == seen
        assert {d["category_id"] for d in detections} == {category}
        assert all({"bbox", "score", "segmentation"} <= d.keys() for d in detections)
        assert torch.tensor(detections[0]["bbox"]).tolist() == [4.0, 6.0, 16.0, 18.0]
    assert found.sem_segs == {}


def test_semantic_predictions_are_of_the_images_shown():
    source, _ = source_of(FakeCascade(num_stages=2, num_labels=4))
    found = run_stages(source, sampled=["a"], shown=["c"])
    assert list(found.sem_segs) == ["c"]
    assert found.sem_segs["c"].shape == (30, 40)


def test_a_model_without_stages_and_semantic_prediction_does_not_run():
    model = FakeCascade()
    del model.roi_heads.test_stage_choices
    source, seen = source_of(model)
    assert run_stages(source, sampled=["a", "b"], shown=["c"]) is None
    assert seen == []


def test_a_model_with_a_semantic_prediction_alone_runs_on_the_images_shown():
    model = FakeCascade(num_labels=4)
    del model.roi_heads.test_stage_choices
    source, seen = source_of(model)
    found = run_stages(source, sampled=["a", "b"], shown=["c"])
    assert seen == ["c"]
    assert found.titles == ["detections"]
