"""Inputs of VOCRegionEvaluator: polygons, no masks, several processes, errors."""

import json
import multiprocessing

import pytest
import torch
from detectron2.utils import comm

from hybrid_cascade.evaluation import VOCRegionEvaluator

from .scenes import random_scenes, rectangle
from .voc_region_reference import MEASURES


def test_ground_truth_may_be_polygons(make, tmp_path):
    scenes = make([[(0, rectangle(4, 4, 12, 14), False)]])
    content = json.loads((tmp_path / "truth.json").read_text())
    content["annotations"][0]["segmentation"] = [[4, 4, 12, 4, 12, 14, 4, 14]]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    scenes.find(0, 0, rectangle(4, 4, 12, 14), 0.9)
    assert scenes.evaluate()["voc_region"]["AP70"] == pytest.approx(100)


def test_a_year_before_2007_is_refused(make):
    scenes = make([[]])
    with pytest.raises(ValueError, match="year=7: .*2007"):
        scenes.evaluate(year=7)
    scenes.evaluate(year=2007)


def test_reset_removes_the_detections(make):
    mask = rectangle(2, 2, 9, 9)
    scenes = make([[(0, mask, False)]])
    scenes.find(0, 0, mask, 0.9)
    evaluator = VOCRegionEvaluator(scenes.name)
    evaluator.process(*scenes.outputs(0))
    evaluator.reset()
    assert evaluator.evaluate()["voc_region"]["AP50"] == 0


def test_a_model_without_masks_is_measured_by_its_boxes_alone(make):
    mask = rectangle(2, 2, 9, 9)
    scenes = make([[(0, mask, False)]])
    scenes.find(0, 0, mask, 0.9)
    inputs, outputs = scenes.outputs(0)
    outputs[0]["instances"].remove("pred_masks")
    evaluator = VOCRegionEvaluator(scenes.name)
    evaluator.process(inputs, outputs)
    results = evaluator.evaluate()
    assert list(results) == ["voc_box"] and results["voc_box"]["AP50"] == 100


def test_masks_of_another_size_are_an_error_that_names_the_image(make):
    scenes = make([[]])
    scenes.find(0, 0, rectangle(2, 2, 9, 9), 0.9)
    inputs, outputs = scenes.outputs(0)
    instances = outputs[0]["instances"]
    instances.pred_masks = instances.pred_masks[:, :20]
    with pytest.raises(ValueError, match=r"Image 100 .*\(20, 32\).*\(24, 32\)"):
        VOCRegionEvaluator(scenes.name).process(inputs, outputs)


def test_ground_truth_without_masks_is_an_error_that_names_the_image(make, tmp_path):
    scenes = make([[(0, rectangle(2, 2, 9, 9), False)]])
    content = json.loads((tmp_path / "truth.json").read_text())
    del content["annotations"][0]["segmentation"]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a.png' .*without `segmentation`"):
        VOCRegionEvaluator(scenes.name)


def _evaluate_share(scenes, rank, file, results, **options):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
    comm.create_local_process_group(2)
    results.put((rank, scenes.evaluate(images=range(rank, len(scenes.truth), 2), **options)))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_result_of_one_and_only_on_the_main_one(make, tmp_path):
    scenes = random_scenes(make, seed=1)
    alone = scenes.evaluate()
    context = multiprocessing.get_context("fork")  # has the dataset registered, imports nothing
    results = context.SimpleQueue()
    arguments = [(scenes, rank, tmp_path / "meeting", results) for rank in range(2)]
    processes = [context.Process(target=_evaluate_share, args=a) for a in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    by_rank = dict(results.get() for _ in processes)
    assert by_rank[1] == {}
    for measure in MEASURES:
        assert by_rank[0][measure] == pytest.approx(alone[measure], nan_ok=True, abs=0)
