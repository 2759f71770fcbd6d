import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.engine import (
    as_run_config,
    build_model,
    draw_results,
    evaluate,
    load_config,
    write_run_report,
)

from ..report.read_page import Page

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "reported_toys", num_train=1, num_val=3)
    DatasetCatalog.get("reported_toys_val")  # draws them
    return "reported_toys_val"


def load(config, name, folder, *opts):
    data = [f"dataloader.test.dataset.names={name}", f"train.output_dir={folder}"]
    data += ["train.device=cpu", "train.num_panels=0"]
    if config != "ssd_toy":
        data.append("model.proposal_generator.post_nms_topk=[20,10]")  # few boxes
    return load_config(str(CONFIGS / "quick_start" / f"{config}.py"), [*data, *opts])


@pytest.mark.parametrize("config", ["htc_toy", "mnc_toy", "mask_rcnn_toy", "faster_rcnn_toy"])
def test_an_evaluation_leaves_a_report_on_all_that_it_measured(config, name, tmp_path):
    cfg = load(config, name, tmp_path, "train.report.images=2", "train.report.stage_images=1")
    model = build_model(cfg).eval()
    results = evaluate(cfg, model)
    (tmp_path / "metrics.json").write_text('{"iteration": 3, "total_loss": 2.5}')
    draw_results(cfg, model)
    data = Page(tmp_path / "report.html").data
    assert data["title"] == name
    assert data["counts"]["images"] == 3
    assert set(data["tasks"]) == set(results)
    for task, metrics in results.items():
        assert 100 * data["tasks"][task]["metrics"]["AP"] == pytest.approx(metrics["AP"], abs=1e-4)
    titles = [frame["title"] for frame in data["gallery"]["images"][0]["frames"]]
    stages = {"htc_toy": [1, 2, 3], "mnc_toy": [3, 5]}.get(config)
    if stages:
        assert [t[: len("after stage 1")] for t in titles] == [f"after stage {s}" for s in stages]
        assert [row["name"] for row in data["stages"]["rows"]] == titles
        assert data["stages"]["images"] == 1
    else:
        assert titles == ["results"]
        assert data["stages"] is None
    images = data["gallery"]["images"]
    assert len(images) == 2
    assert all(image["uri"] for image in images)
    assert all((image["sem_seg"] is not None) == (config == "htc_toy") for image in images)
    assert "max_iter" in data["config"]
    assert data["training"][0]["lines"][0]["points"] == [[3, 2.5]]


def test_the_switch_is_off_in_both_kinds_of_config(name, tmp_path):
    lazy = load("htc_toy", name, tmp_path, "train.report.enabled=False")
    yaml = load_config(
        str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml"),
        f"DATASETS.TEST ('{name}',) OUTPUT_DIR {tmp_path} TEST.NUM_PANELS 0 "
        "TEST.REPORT.ENABLED False".split(" ", 12),
    )
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "coco_instances_results.json").write_text("[]")
    for cfg in (lazy, yaml):
        draw_results(cfg, torch.nn.Linear(1, 1))
        assert not (tmp_path / "report.html").exists()
    on = as_run_config(lazy).replaced(writes_report=True)
    draw_results(on.cfg, torch.nn.Linear(1, 1))
    assert Page(tmp_path / "report.html").data["counts"]["detections"] == 0


def test_an_evaluation_without_coco_results_leaves_no_report(name, tmp_path):
    draw_results(load("htc_toy", name, tmp_path), torch.nn.Linear(1, 1))
    assert not (tmp_path / "report.html").exists()


def test_results_that_do_not_fit_end_no_run(name, tmp_path, caplog):
    (tmp_path / "inference").mkdir()
    found = {"image_id": -5, "category_id": 1, "bbox": [1, 2, 9, 9], "score": 0.5}
    (tmp_path / "inference" / "coco_instances_results.json").write_text(json.dumps([found]))
    cfg = load("htc_toy", name, tmp_path)
    evaluation = "hybrid_cascade.engine.evaluation"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{evaluation}.plot_precision_recall", lambda *args: None)
        draw_results(cfg, torch.nn.Linear(1, 1))
    assert not (tmp_path / "report.html").exists()
    assert "report.html is not written" in caplog.text and "image_id -5" in caplog.text


def test_the_log_names_the_page(name, tmp_path, caplog):
    results = tmp_path / "results.json"
    image_id = json.loads(Path(MetadataCatalog.get(name).json_file).read_text())["images"][0]["id"]
    category = next(iter(MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id))
    found = {"image_id": image_id, "category_id": category, "bbox": [1, 2, 9, 9], "score": 0.5}
    results.write_text(json.dumps([found]))
    run_config = as_run_config(load("ssd_toy", name, tmp_path))
    with caplog.at_level(logging.INFO, logger="hybrid_cascade"):
        path = tmp_path / "a.html"
        write_run_report(
            run_config, torch.nn.Linear(1, 1), name, results, path, sources={"weights": "x.pth"}
        )
    assert str(path) in caplog.text
    assert Page(path).data["sources"] == {"weights": "x.pth"}
