import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from detectron2.structures.masks import polygons_to_bitmask

from hybrid_cascade.data import register_coco_json, register_toy_scenes
from hybrid_cascade.engine import draw_results, evaluate, evaluation, load_config
from hybrid_cascade.evaluation import VOCRegionEvaluator

CONFIGS = Path(__file__).parent.parent.parent / "configs"


class Oracle(torch.nn.Module):
    """Finds every instance of a dataset of polygons exactly."""

    def __init__(self, dataset_name):
        super().__init__()
        self.dataset = {image["image_id"]: image for image in DatasetCatalog.get(dataset_name)}

    def forward(self, batched_inputs):
        return [{"instances": self.find(x["image_id"])} for x in batched_inputs]

    def find(self, image_id):
        image = self.dataset[image_id]
        size = image["height"], image["width"]
        annotations = [a for a in image["annotations"] if not a["iscrowd"]]
        masks = np.array([polygons_to_bitmask(a["segmentation"], *size) for a in annotations])
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        return Instances(
            size,
            pred_boxes=Boxes(torch.tensor(np.array(boxes, np.float32)).reshape(-1, 4)),
            pred_masks=BitMasks(torch.tensor(masks, dtype=torch.bool).reshape(-1, *size)).tensor,
            pred_classes=torch.tensor([a["category_id"] for a in annotations], dtype=torch.long),
            scores=torch.ones(len(annotations)),
        )


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Three toy scenes as two datasets: one with COCO's metrics, one with VOC's too."""
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "measured_toys", num_train=1, num_val=3)
    DatasetCatalog.get("measured_toys_val")  # draws them
    register_coco_json(
        "measured_toys_voc",
        str(root / "annotations" / "instances_val.json"),
        str(root / "val"),
        evaluator_type="voc_region",
    )
    yield "measured_toys_val", "measured_toys_voc"
    for name in ("measured_toys_train", "measured_toys_val", "measured_toys_voc"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def check(results, folder, tasks):
    assert set(results) == tasks
    for task in tasks:
        assert results[task]["AP50"] == pytest.approx(100)
    saved = json.loads((folder / "results.json").read_text())
    assert set(saved) == tasks
    assert (folder / "inference" / "coco_instances_results.json").is_file()


def test_a_list_of_evaluators_in_a_lazy_config_gives_the_metrics_of_all(names, tmp_path):
    name = names[0]
    opts = [f"dataloader.test.dataset.names={name}", f"train.output_dir={tmp_path}"]
    cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"), opts)
    check(evaluate(cfg, Oracle(name)), tmp_path, {"bbox", "segm"})
    cfg.dataloader.evaluator = [
        L(COCOEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
        L(VOCRegionEvaluator)(dataset_name="${dataloader.test.dataset.names}"),
    ]
    expected = {"bbox", "segm", "voc_region", "voc_box", "voc_mask_box"}
    check(evaluate(cfg, Oracle(name)), tmp_path, expected)


def test_a_yaml_config_measures_what_the_dataset_asks_for(names, tmp_path):
    coco, voc = names
    yaml = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")
    for name, expected in (
        (coco, {"bbox", "segm"}),
        (voc, {"bbox", "segm", "voc_region", "voc_box", "voc_mask_box"}),
    ):
        opts = ["DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", str(tmp_path / name)]
        cfg = load_config(yaml, [*opts, "DATALOADER.NUM_WORKERS", "0"])
        (tmp_path / name).mkdir()
        check(evaluate(cfg, Oracle(name)), tmp_path / name, expected)


def test_the_data_of_sbd_is_read_as_bit_masks_and_measured_by_both():
    dataloader = LazyConfig.load(str(CONFIGS / "common" / "data" / "sbd.py")).dataloader
    assert dataloader.train.mapper.instance_mask_format == "bitmask"
    assert [e._target_ for e in dataloader.evaluator] == [COCOEvaluator, VOCRegionEvaluator]
    assert dataloader.evaluator[1].dataset_name == dataloader.test.dataset.names == "sbd_val"


def test_several_datasets_of_a_yaml_config_are_measured_and_stored_one_by_one(names, tmp_path):
    yaml = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")
    opts = ["DATASETS.TEST", str(names), "OUTPUT_DIR", str(tmp_path)]
    results = evaluate(load_config(yaml, [*opts, "DATALOADER.NUM_WORKERS", "0"]), Oracle(names[0]))
    assert list(results) == list(names)
    assert [set(x) >= {"bbox", "segm"} for x in results.values()] == [True, True]
    for name in names:
        assert (tmp_path / "inference" / name / "coco_instances_results.json").is_file()


def test_panels_are_drawn_in_eval_mode_without_gradients_and_the_model_trains_on(
    names, tmp_path, monkeypatch
):
    seen = []

    def draw(model, batched_input, metadata, *, ground_truth):
        seen.append((model.training, torch.is_grad_enabled(), ground_truth["image_id"]))
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(evaluation, "draw_cascade_panel", draw)
    opts = [f"dataloader.test.dataset.names={names[0]}", f"train.output_dir={tmp_path}"]
    cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"), [*opts, "train.num_panels=2"])
    model = torch.nn.Linear(1, 1).train()
    draw_results(cfg, model)
    images = [image["image_id"] for image in DatasetCatalog.get(names[0])]
    assert seen == [(False, False, image_id) for image_id in images[:2]]
    assert model.training
    assert len(list((tmp_path / "panels").iterdir())) == 2
