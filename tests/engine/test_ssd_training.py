"""The trainer with a detector that has no ROI heads and no masks."""

import json

import pytest
from PIL import Image

from hybrid_cascade.data import DatasetError, register_toy_scenes
from hybrid_cascade.engine import LazyTrainer, load_config
from hybrid_cascade.model_zoo import get_config_file


@pytest.fixture(scope="module", autouse=True)
def toy_scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "toy_scenes_for_ssd", num_train=5, num_val=2)


def trainer(folder, *overrides):
    tiny = [
        f"train.output_dir={folder}",
        "train.max_iter=2",
        "train.log_period=1",
        "train.num_panels=1",
        "train.report.images=1",
        "model.image_size=96",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.dataset.names=toy_scenes_for_ssd_train",
        "dataloader.test.dataset.names=toy_scenes_for_ssd_val",
    ]
    return LazyTrainer(load_config(get_config_file("quick_start/ssd_toy.py"), [*tiny, *overrides]))


def test_ssd_trains_evaluates_boxes_and_draws_detections(tmp_path):
    trainer(tmp_path).train()
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"bbox"}
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert {"loss_cls", "loss_box_reg", "total_loss"} <= set(metrics[0])
    for name in ("training_curves.png", "precision_recall.png", "model_final.pth"):
        assert (tmp_path / name).is_file()
    (panel,) = (tmp_path / "panels").iterdir()
    assert Image.open(panel).width > 400


def test_a_wrong_number_of_classes_is_an_error_before_the_first_iteration(tmp_path):
    with pytest.raises(DatasetError, match=r"5 classes of things.*`model.num_classes`"):
        trainer(tmp_path, "model.num_classes=4")
