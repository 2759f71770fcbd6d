import json
import os
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import AMPTrainer
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils.env import seed_all_rng

from hybrid_cascade.data import DatasetError, register_toy_scenes
from hybrid_cascade.engine import LazyTrainer, Trainer, build_model, load_config, load_weights
from hybrid_cascade.engine import trainer as trainer_module

ROOT = Path(__file__).parent.parent.parent
TOY = str(ROOT / "configs" / "quick_start" / "htc_toy.py")
# The smallest model that is still HTC, and four images of the toy scenes to train on.
TINY = [
    "train.max_iter=4",
    "train.checkpointer.period=2",
    "train.log_period=1",
    "train.num_panels=1",
    "train.report.images=1",
    "train.report.stage_images=0",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.dataset.names=four_toy_scenes_train",
    "dataloader.test.dataset.names=four_toy_scenes_val",
]


@pytest.fixture(scope="module", autouse=True)
def toy_scenes(tmp_path_factory):
    # The first image has no annotation and is left out of the training.
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "four_toy_scenes", num_train=5, num_val=3)
    return root


def run(folder, *overrides, resume=False):
    config = load_config(TOY, [*TINY, f"train.output_dir={folder}", *overrides])
    os.makedirs(folder, exist_ok=True)
    seed_all_rng(config.train.seed)  # as default_setup does
    trainer = Trainer(config)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def weights(folder, name):
    return torch.load(Path(folder) / name, weights_only=True)["model"]


def test_a_training_leaves_metrics_curves_panels_and_checkpoints(tmp_path):
    run(tmp_path)
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    expected = {"metrics.json", "results.json", "training_curves.png", "precision_recall.png"}
    expected |= {"report.html"}
    assert expected | {"model_final.pth", "model_0000001.pth"} <= written
    assert len([name for name in written if name.startswith("panels/")]) == 1
    assert any("tfevents" in name for name in written)
    checkpoint = torch.load(tmp_path / "weights_final.pth", weights_only=True)
    assert set(checkpoint) == {"model", "trained_with"}
    assert checkpoint["trained_with"]["thing_classes"] == ["ball", "buoy", "tent", "sail", "kite"]
    assert checkpoint["trained_with"]["input_format"] == "RGB"
    final = weights(tmp_path, "model_final.pth")
    assert all(torch.equal(final[key], value) for key, value in checkpoint["model"].items())
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"bbox", "segm"} and "AP" in results["segm"]


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "parts")
    # As if the second run had died after its second iteration.
    (tmp_path / "parts" / "model_final.pth").unlink()
    (tmp_path / "parts" / "last_checkpoint").write_text("model_0000001.pth")
    run(tmp_path / "parts", resume=True)
    whole = weights(tmp_path / "whole", "model_final.pth")
    parts = weights(tmp_path / "parts", "model_final.pth")
    half = weights(tmp_path / "parts", "model_0000001.pth")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert not all(torch.equal(whole[k], half[k]) for k in whole)


def test_options_of_the_train_section_reach_the_trainer(tmp_path, monkeypatch):
    ddp_options = {}
    monkeypatch.setattr(
        trainer_module,
        "create_ddp_model",
        lambda model, **options: ddp_options.update(options) or model,
    )
    config = load_config(
        TOY,
        [
            *TINY,
            f"train.output_dir={tmp_path}",
            "train.checkpointer.max_to_keep=3",
            "train.log_period=7",
            "train.clip_gradients.clip_value=0.5",
            "train.ddp.find_unused_parameters=True",
            "train.amp.enabled=True",
        ],
    )
    trainer = Trainer(config)
    hooks = {type(hook).__name__: hook for hook in trainer._hooks}
    assert hooks["PeriodicCheckpointer"].max_to_keep == 3
    assert hooks["PeriodicCheckpointer"].period == 2
    assert hooks["PeriodicWriter"]._period == 7
    assert type(trainer.optimizer).__name__ == "AdamWWithGradientClip"
    assert ddp_options["find_unused_parameters"] is True
    assert ddp_options["broadcast_buffers"] is False
    # DistributedDataParallel takes device_ids for GPUs only.
    assert ("device_ids" in ddp_options) != torch.cuda.is_available()
    # Mixed precision needs a GPU; without one the training says so and goes on in float32.
    assert isinstance(trainer._trainer, AMPTrainer) == torch.cuda.is_available()


def test_the_name_for_lazy_configs_from_before_is_the_same_trainer():
    assert LazyTrainer is Trainer


def test_gradients_are_clipped(tmp_path):
    def largest_gradient(clip_value):
        folder = tmp_path / str(clip_value)
        trainer = run(folder, "train.max_iter=1", f"train.clip_gradients.clip_value={clip_value}")
        norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
        return max(norms)

    assert largest_gradient(1e-6) <= 1.01e-6 < largest_gradient(5)


def test_the_wrong_number_of_classes_is_found_before_the_first_iteration(tmp_path):
    with pytest.raises(DatasetError, match="5 classes of things.*num_classes"):
        run(tmp_path, "model.roi_heads.num_classes=4")


def test_labels_that_the_semantic_branch_does_not_have_are_found_too(tmp_path):
    with pytest.raises(DatasetError, match=r"stuff_train.*model.semantic_branch.num_classes"):
        run(tmp_path, "model.semantic_branch.num_classes=6")


def test_fusion_without_a_branch_is_found_too(tmp_path):
    config = load_config(TOY, [*TINY, f"train.output_dir={tmp_path}"])
    config.model._target_ = "detectron2.modeling.GeneralizedRCNN"
    for key in ("semantic_branch", "semantic_targets", "stuff_labels", "combine_stuff_area_thresh"):
        config.model.pop(key)
    with pytest.raises(ValueError, match="roi_heads.semantic_fusion"):
        Trainer(config)


def test_what_can_not_be_measured_is_found_too(tmp_path):
    # Its branch learns from maps that are painted from instances: five classes and the background.
    painted = ["model.semantic_targets.source=instances", "model.semantic_branch.num_classes=6"]
    with pytest.raises(ValueError, match="has 6 classes.*'four_toy_scenes_val' have 9 labels"):
        run(tmp_path, *painted, "train.evaluate_sem_seg=True")
    yaml = ROOT / "configs" / "yaml" / "htc" / "htc_without_semantic_r50_fpn_1x.yaml"
    names = "DATASETS.TRAIN ('four_toy_scenes_train',) DATASETS.TEST ('four_toy_scenes_val',)"
    cfg = load_config(str(yaml), [*names.split(), "MODEL.ROI_HEADS.NUM_CLASSES", "5"])
    metadata = vars(MetadataCatalog.get("four_toy_scenes_val"))
    kind = metadata.pop("evaluator_type")
    try:
        with pytest.raises(ValueError, match="'four_toy_scenes_val' has no `evaluator_type`"):
            Trainer(cfg)
    finally:
        metadata["evaluator_type"] = kind


def test_the_semantic_branch_is_measured_after_a_training_on_request(tmp_path):
    run(tmp_path, "train.max_iter=1", "train.evaluate_sem_seg=True")
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"bbox", "segm", "sem_seg"} and results["sem_seg"]["mIoU"] is not None


def test_a_missing_dataset_is_an_error_that_says_where_it_is_expected(tmp_path):
    with pytest.raises(DatasetError, match="instances_train2017.json.*DETECTRON2_DATASETS"):
        run(tmp_path, "dataloader.train.dataset.names=coco_2017_train_stuffthings")


YAML = f"""
_BASE_: "{ROOT}/configs/yaml/htc/htc_r50_fpn_1x.yaml"
SEED: 1
MODEL:
  WEIGHTS: ""
  BACKBONE: {{FREEZE_AT: 0}}
  RESNETS: {{STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 32, WIDTH_PER_GROUP: 8, NORM: "BN"}}
  FPN: {{OUT_CHANNELS: 32}}
  RPN: {{POST_NMS_TOPK_TRAIN: 50, POST_NMS_TOPK_TEST: 20}}
  ROI_HEADS: {{NUM_CLASSES: 5, BATCH_SIZE_PER_IMAGE: 16}}
  ROI_BOX_HEAD: {{FC_DIM: 32}}
  ROI_MASK_HEAD: {{CONV_DIM: 32, NUM_CONV: 1}}
  SEMANTIC_BRANCH: {{NUM_CLASSES: 9, CONV_DIM: 32}}
DATASETS:
  TRAIN: ("four_toy_scenes_train",)
  TEST: ("four_toy_scenes_val",)
DATALOADER: {{NUM_WORKERS: 0}}
INPUT:
  MIN_SIZE_TRAIN: (96,)
  MIN_SIZE_TEST: 96
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 2, BASE_LR: 0.001}}
TEST: {{NUM_PANELS: 1, REPORT: {{IMAGES: 1, STAGE_IMAGES: 0}}}}
"""


def test_a_yaml_config_trains_through_the_same_trainer(tmp_path):
    (tmp_path / "tiny.yaml").write_text(YAML)
    cfg = load_config(str(tmp_path / "tiny.yaml"), ["OUTPUT_DIR", str(tmp_path / "out")])
    (tmp_path / "out").mkdir()
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    trainer.train()
    written = {p.name for p in (tmp_path / "out").iterdir()}
    expected = {"metrics.json", "results.json", "training_curves.png", "model_final.pth", "panels"}
    assert expected | {"report.html"} <= written


def test_the_switches_of_a_yaml_config_work_together(tmp_path):
    (tmp_path / "tiny.yaml").write_text(YAML)
    opts = ["OUTPUT_DIR", str(tmp_path / "out"), "SOLVER.EMA_DECAY", "0.5"]
    opts += ["SOLVER.MICRO_BATCHES", "2", "SOLVER.BEST_CHECKPOINT_METRIC", "bbox/AP"]
    cfg = load_config(str(tmp_path / "tiny.yaml"), opts)
    (tmp_path / "out").mkdir()
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    trainer.train()
    final, best = (weights(tmp_path / "out", f"model_{name}.pth") for name in ("final", "best"))
    trained = trainer.model.state_dict()
    assert all(torch.equal(best[key], value) for key, value in final.items())
    assert not all(torch.equal(trained[key], value) for key, value in final.items())
    load_weights(build_model(cfg), str(tmp_path / "out" / "model_best.pth"))


@pytest.mark.parametrize("pastes", [False, True])
def test_the_loader_of_a_yaml_config_pastes_where_it_says_so(pastes, tmp_path):
    (tmp_path / "tiny.yaml").write_text(YAML)
    opts = ["OUTPUT_DIR", str(tmp_path), "INPUT.COPY_PASTE.ENABLED", str(pastes)]
    trainer = Trainer(load_config(str(tmp_path / "tiny.yaml"), opts))
    batch = next(iter(trainer.build_train_loader(trainer.cfg)))
    masks = BitMasks if pastes else PolygonMasks
    assert [type(x["instances"].gt_masks) for x in batch] == [masks] * 2


def file_names(loader):
    return [Path(x["file_name"]).name for x in next(iter(loader))]


def test_a_resumed_run_continues_its_images_where_precise_bn_has_a_loader_too(tmp_path):
    (tmp_path / "tiny.yaml").write_text(YAML)
    opts = ["OUTPUT_DIR", str(tmp_path), "TEST.PRECISE_BN.ENABLED", "True", "TEST.EVAL_PERIOD", "9"]
    cfg = load_config(str(tmp_path / "tiny.yaml"), opts)
    whole = Trainer(cfg)
    assert "PreciseBN" in [type(hook).__name__ for hook in whole._hooks]
    batches = iter(whole.data_loader)
    next(batches)
    second = [Path(x["file_name"]).name for x in next(batches)]
    resumed = Trainer(cfg)
    resumed.checkpointer.save("model_0000000", iteration=0)
    resumed.resume_or_load()
    assert file_names(resumed.data_loader) == second != file_names(whole.data_loader)
