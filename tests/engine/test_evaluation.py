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
from PIL import Image

from hybrid_cascade.data import DatasetError, register_coco_json, register_toy_scenes
from hybrid_cascade.engine import (
    as_run_config,
    build_model,
    draw_results,
    evaluate,
    evaluation,
    load_config,
)
from hybrid_cascade.evaluation import FastCOCOEvaluator, LabelMapEvaluator, VOCRegionEvaluator

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


def check(results, folder, tasks, perfect=None):
    assert set(results) == tasks
    for task in perfect or tasks:
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


class SemanticOracle(Oracle):
    """Knows the label maps too, but takes water (8) for sky (5)."""

    def forward(self, batched_inputs):
        outputs = super().forward(batched_inputs)
        for x, output in zip(batched_inputs, outputs, strict=True):
            labels = torch.tensor(label_map(self.dataset[x["image_id"]]))
            labels[(labels == 255) | (labels == 8)] = 5
            output["sem_seg"] = torch.nn.functional.one_hot(labels, 9).permute(2, 0, 1).float()
        return outputs


def label_map(image):
    return np.array(Image.open(image["sem_seg_file_name"]), dtype=np.int64)


def semantic_configs(name, folder):
    """Yield a config of each kind, with the semantic branch measured."""
    yield load_config(
        str(CONFIGS / "quick_start" / "htc_toy.py"),
        [
            f"dataloader.test.dataset.names={name}",
            f"train.output_dir={folder}",
            "train.evaluate_sem_seg=True",
        ],
    )
    yield load_config(
        str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml"),
        [
            *("DATASETS.TEST", f"('{name}',)", "OUTPUT_DIR", str(folder)),
            *("DATALOADER.NUM_WORKERS", "0", "TEST.EVALUATE_SEM_SEG", "True"),
        ],
    )


def mean_iou(pairs):
    """Return the mean IoU in percent over the labels in the ground truth, by its definition."""
    truth = np.concatenate([labels.ravel() for labels, _ in pairs])
    found = np.concatenate([labels.ravel() for _, labels in pairs])
    truth, found = truth[truth != 255], found[truth != 255]
    ious = [
        ((truth == label) & (found == label)).sum() / ((truth == label) | (found == label)).sum()
        for label in np.unique(truth)
    ]
    return 100 * np.mean(ious)


def test_the_labels_of_the_semantic_branch_are_measured_on_request(names, tmp_path):
    name = names[0]
    oracle = SemanticOracle(name)
    pairs = []
    for image in oracle.dataset.values():
        found = label_map(image)
        pairs.append((found.copy(), np.where((found == 255) | (found == 8), 5, found)))
    for cfg in semantic_configs(name, tmp_path):
        results = evaluate(cfg, oracle)
        check(results, tmp_path, {"bbox", "segm", "sem_seg"}, ("bbox", "segm"))
        assert 0 < results["sem_seg"]["mIoU"] < 99
        assert results["sem_seg"]["mIoU"] == pytest.approx(mean_iou(pairs))
        assert results["sem_seg"]["IoU-water"] == 0
        assert (tmp_path / "inference" / "sem_seg_predictions.json").is_file()


def test_the_miou_of_a_model_is_that_of_its_logits(names, tmp_path):
    cfg = next(semantic_configs(names[0], tmp_path))
    model = build_model(cfg)
    measured = evaluate(cfg, model)["sem_seg"]["mIoU"]
    mapper = as_run_config(cfg).build_test_mapper()
    pairs = []
    for image in DatasetCatalog.get(names[0]):
        with torch.no_grad():
            [output] = model([mapper(image)])
        pairs.append((label_map(image), output["sem_seg"].argmax(dim=0).numpy()))
    assert measured == pytest.approx(mean_iou(pairs)) and 0 < measured < 100


def test_an_evaluator_of_label_maps_that_a_config_names_itself_runs_once(names, tmp_path):
    cfg = next(semantic_configs(names[0], tmp_path))
    cfg.dataloader.evaluator = L(LabelMapEvaluator)(dataset_name=names[0])
    assert set(evaluate(cfg, SemanticOracle(names[0]))) == {"sem_seg"}
    assert (tmp_path / "inference" / "sem_seg_predictions.json").is_file()


def test_datasets_that_a_lazy_config_joins_have_no_miou(names, tmp_path):
    cfg = next(semantic_configs(names[0], tmp_path))
    cfg.dataloader.test.dataset.names = list(names)
    with pytest.raises(ValueError, match=r"evaluate_sem_seg measures one dataset.*measured_toys"):
        evaluate(cfg, torch.nn.Identity())


class NeverCalled(torch.nn.Module):
    def forward(self, batched_inputs):
        raise AssertionError("inference has started")


def test_what_can_not_be_measured_is_an_error_before_inference(names, tmp_path):
    with_maps, without_maps = names
    for cfg in semantic_configs(without_maps, tmp_path):
        with pytest.raises(ValueError, match=f"'{without_maps}' can't be measured.*no label map"):
            evaluate(cfg, NeverCalled())
    model = NeverCalled()
    model.semantic_branch = torch.nn.Module()
    model.semantic_branch.num_classes = 6
    for cfg in semantic_configs(with_maps, tmp_path):
        with pytest.raises(ValueError, match=f"has 6 classes.*'{with_maps}' have 9 labels"):
            evaluate(cfg, model)


def test_a_yaml_config_refuses_datasets_that_nothing_can_measure_before_inference(names, tmp_path):
    metadata = vars(MetadataCatalog.get(names[1]))
    kind = metadata["evaluator_type"]
    yaml = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")
    cfg = load_config(yaml, ["DATASETS.TEST", str(names), "OUTPUT_DIR", str(tmp_path)])
    try:
        metadata["evaluator_type"] = "counting"
        with pytest.raises(ValueError, match=f"'{names[1]}' has the `evaluator_type` 'counting'"):
            evaluate(cfg, NeverCalled())
        metadata["evaluator_type"] = "sem_seg"
        with pytest.raises(ValueError, match=f"'{names[1]}'.*'sem_seg'.*TEST.EVALUATE_SEM_SEG"):
            evaluate(cfg, NeverCalled())
        del metadata["evaluator_type"]
        with pytest.raises(ValueError, match=f"'{names[1]}' has no `evaluator_type`"):
            evaluate(cfg, NeverCalled())
    finally:
        metadata["evaluator_type"] = kind


def test_a_dataset_of_label_maps_is_measured_by_them_alone(names, tmp_path):
    metadata = vars(MetadataCatalog.get(names[0]))
    kind = metadata["evaluator_type"]
    _, cfg = semantic_configs(names[0], tmp_path)
    try:
        metadata["evaluator_type"] = "sem_seg"
        assert set(evaluate(cfg, SemanticOracle(names[0]))) == {"sem_seg"}
    finally:
        metadata["evaluator_type"] = kind


def test_the_panoptic_fpn_of_detectron2_is_measured_as_there(names, tmp_path):
    metadata = vars(MetadataCatalog.get(names[0]))
    kind = metadata["evaluator_type"]
    _, cfg = semantic_configs(names[0], tmp_path)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE, cfg.TEST.EVALUATE_SEM_SEG = "PanopticFPN", False
    run_config = as_run_config(cfg)
    assert run_config.outputs_panoptic_seg
    try:
        for given, expected in (
            ("coco_panoptic_seg", [FastCOCOEvaluator, LabelMapEvaluator]),
            ("coco", [FastCOCOEvaluator]),
        ):
            metadata["evaluator_type"] = given
            evaluators = run_config.build_evaluators(names[0], str(tmp_path))
            assert [type(e) for e in evaluators] == expected
    finally:
        metadata["evaluator_type"] = kind
    cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED = False
    assert not run_config.outputs_panoptic_seg


def test_the_data_of_sbd_is_read_as_bit_masks_and_measured_by_both():
    dataloader = LazyConfig.load(str(CONFIGS / "common" / "data" / "sbd.py")).dataloader
    assert dataloader.train.mapper.instance_mask_format == "bitmask"
    assert [e._target_ for e in dataloader.evaluator] == [FastCOCOEvaluator, VOCRegionEvaluator]
    assert dataloader.evaluator[1].dataset_name == dataloader.test.dataset.names == "sbd_val"


def test_several_datasets_of_a_yaml_config_are_measured_and_stored_one_by_one(names, tmp_path):
    yaml = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")
    opts = ["DATASETS.TEST", str(names), "OUTPUT_DIR", str(tmp_path)]
    results = evaluate(load_config(yaml, [*opts, "DATALOADER.NUM_WORKERS", "0"]), Oracle(names[0]))
    assert list(results) == list(names)
    assert [set(x) >= {"bbox", "segm"} for x in results.values()] == [True, True]
    for name in names:
        assert (tmp_path / "inference" / name / "coco_instances_results.json").is_file()


def test_classes_of_the_checkpoint_in_another_order_are_an_error(names, tmp_path):
    opts = [f"dataloader.test.dataset.names={names[0]}", f"train.output_dir={tmp_path}"]
    cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"), opts)
    trained_with = {"thing_classes": MetadataCatalog.get(names[0]).thing_classes[::-1]}
    with pytest.raises(DatasetError, match="other `thing_classes` than the training of the check"):
        evaluate(cfg, Oracle(names[0]), trained_with=trained_with)


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


def test_curves_are_those_of_the_evaluation_unless_another_evaluator_left_the_results(
    names, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        evaluation, "draw_precision_recall", lambda evaluated, path: drawn.append(list(evaluated))
    )
    monkeypatch.setattr(
        evaluation, "plot_precision_recall", lambda *paths: drawn.append("evaluated anew")
    )
    opts = [f"dataloader.test.dataset.names={names[0]}", f"train.output_dir={tmp_path}"]
    opts += ["train.num_panels=0", "train.report.enabled=False"]
    cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"), opts)
    for evaluator in (FastCOCOEvaluator, COCOEvaluator):
        cfg.dataloader.evaluator._target_ = evaluator
        evaluate(cfg, Oracle(names[0]))
        draw_results(cfg, torch.nn.Linear(1, 1))
    assert drawn == [["bbox", "segm"], "evaluated anew"]
