import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf

from hybrid_cascade.engine import ConfigError, as_run_config, load_config
from hybrid_cascade.engine.config_checks import (
    check_proposal_files,
    check_test_datasets,
    check_training,
    check_values,
)

CONFIGS = Path(__file__).parent.parent.parent / "configs"
TOY = str(CONFIGS / "quick_start" / "htc_toy.py")
YAML = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")

NAN = float("nan")
PREDICTOR = "model.roi_heads.box_predictors.0"


@pytest.fixture(scope="module")
def toy():
    return load_config(TOY)


@pytest.fixture(scope="module")
def yaml():
    return load_config(YAML)


@pytest.mark.parametrize(
    "lazy, yaml_key, value",
    [
        ("train.max_iter", "SOLVER.MAX_ITER", 0),
        ("train.log_period", None, 0),
        ("train.channels_last", "MODEL.CHANNELS_LAST", "maybe"),
        ("train.inference.dtype", "TEST.INFERENCE.DTYPE", "float16"),
        ("train.inference.fuse_layers", "TEST.INFERENCE.FUSE_LAYERS", "maybe"),
        ("train.num_panels", "TEST.NUM_PANELS", "abc"),
        ("train.report.enabled", "TEST.REPORT.ENABLED", "maybe"),
        ("train.report.images", "TEST.REPORT.IMAGES", -1),
        ("train.report.stage_images", "TEST.REPORT.STAGE_IMAGES", 0.5),
        ("train.clip_gradients.clip_value", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", -1.0),
        ("train.test_time.short_sides", "TEST.AUG.MIN_SIZES", [0]),
        ("optimizer.lr", "SOLVER.BASE_LR", -0.1),
        ("optimizer.lr", "SOLVER.BASE_LR", NAN),
        ("lr_multiplier.warmup_length", None, 2),
        ("dataloader.train.total_batch_size", "SOLVER.IMS_PER_BATCH", 0),
        ("dataloader.train.mapper.instance_mask_format", "INPUT.MASK_FORMAT", "foo"),
        ("model.pixel_std", "MODEL.PIXEL_STD", [0, 0, 0]),
        ("model.backbone.bottom_up.freeze_at", "MODEL.BACKBONE.FREEZE_AT", 9),
        ("model.roi_heads.batch_size_per_image", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 0),
        ("model.roi_heads.positive_fraction", "MODEL.ROI_HEADS.POSITIVE_FRACTION", 2),
        (
            "model.roi_heads.stage_loss_weights",
            "MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS",
            [1.0, NAN, 1.0],
        ),
        ("model.roi_heads.box_heads.0.fc_dims", None, [0]),
        ("train.seed", "SEED", True),
        ("train.ema_decay", "SOLVER.EMA_DECAY", 1.0),
        ("train.micro_batches", "SOLVER.MICRO_BATCHES", 0),
        ("train.checkpointer.best_metric", "SOLVER.BEST_CHECKPOINT_METRIC", None),
        ("train.wandb.project", "WANDB.PROJECT", 3),
        (f"{PREDICTOR}.cls_agnostic_bbox_reg", None, "maybe"),
        (f"{PREDICTOR}.use_sigmoid_ce", None, "maybe"),
        (f"{PREDICTOR}.box2box_transform.scale_clamp", None, NAN),
        (f"{PREDICTOR}.box_reg_loss_type", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "foo"),
        (f"{PREDICTOR}.input_shape.channels", None, -7),
        ("model.roi_heads.proposal_matchers.0.allow_low_quality_matches", None, "maybe"),
        ("model.roi_heads.box_in_features", "MODEL.ROI_HEADS.IN_FEATURES", "p2"),
        ("model.roi_heads.box_pooler.scales", None, [-0.25]),
        (
            "model.roi_heads.semantic_pooler.output_size",
            "MODEL.ROI_HTC_HEAD.SEMANTIC_POOLER_RESOLUTION",
            -7,
        ),
        ("model.proposal_generator.head.num_anchors", None, "abc"),
        ("model.proposal_generator.anchor_generator.strides", "MODEL.SSD.STEPS", [-7]),
        (
            "model.combine_stuff_area_thresh",
            "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT",
            -7,
        ),
        ("dataloader.train.mapper.augmentations.0.horizontal", None, "maybe"),
        ("dataloader.test.mapper.augmentations", None, "abc"),
    ],
)
def test_a_value_that_none_can_mean_is_refused_by_its_key_in_both_kinds(
    toy, yaml, lazy, yaml_key, value
):
    cfg = toy.copy()
    OmegaConf.update(cfg, lazy, value, force_add=True)
    with pytest.raises(ConfigError, match=rf"^{lazy} is .*, but has to be "):
        check_values(cfg)
    if yaml_key is not None:
        cfg = yaml.clone()
        cfg.defrost()
        *sections, last = yaml_key.split(".")
        node = cfg
        for section in sections:
            node = node[section]
        node[last] = value
        with pytest.raises(ConfigError, match=rf"^{yaml_key} is .*, but has to be "):
            check_values(cfg)


def test_what_a_config_refers_to_is_checked(toy):
    cfg = toy.copy()
    cfg.train.log_period = "${dataloader.train.num_workers}"
    with pytest.raises(ConfigError, match="train.log_period is 0"):
        check_values(cfg)
    cfg.train.log_period = "${nowhere}"
    with pytest.raises(ConfigError, match="train.log_period is '..nowhere"):
        check_values(cfg)


def my_optimizer(lr):
    """Take a rate by another meaning of the name."""


def test_arguments_of_functions_that_are_not_known_are_not_checked(toy):
    cfg = toy.copy()
    cfg.optimizer = L(my_optimizer)(lr="cosine")
    cfg.lr_multiplier = {}
    check_values(cfg)


def test_a_linear_layer_may_have_numbers_of_features(toy):
    cfg = toy.copy()
    OmegaConf.update(cfg, "model.neck", L(torch.nn.Linear)(in_features=8, out_features=4))
    check_values(cfg)


def test_datasets_that_are_not_registered_are_named_with_the_nearest(toy):
    cfg = toy.copy()
    cfg.dataloader.train.dataset.names = ["toy_scenes_train", "toy_scenes_trian"]
    with pytest.raises(ConfigError, match="train.dataset.names .*_trian'.* 'toy_scenes_train'"):
        check_training(as_run_config(cfg), 1)
    cfg.dataloader.test.dataset.names = "nowhere"
    with pytest.raises(ConfigError, match="dataloader.test.dataset.names .*'nowhere'"):
        check_test_datasets(as_run_config(cfg))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_yaml", [False, True])
def test_files_of_proposals_run_no_code(is_yaml, tmp_path):
    path = tmp_path / "proposals.pkl"
    cfg = load_config(YAML if is_yaml else TOY)
    if is_yaml:
        cfg.defrost()
        cfg.MODEL.LOAD_PROPOSALS = True
        cfg.DATASETS.PROPOSAL_FILES_TEST = (str(path),)
    else:
        cfg.dataloader.train.dataset.proposal_files = [str(path)]
    proposals = {"ids": [3], "boxes": [np.zeros((2, 4), np.float32)], "bbox_mode": 0}
    path.write_bytes(pickle.dumps(proposals))
    check_proposal_files(as_run_config(cfg))
    path.write_bytes(pickle.dumps({**proposals, "extra": Bomb(tmp_path / "executed")}))
    with pytest.raises(ConfigError, match=r"proposals\.pkl.*can't be read: .*touch|getattr"):
        check_proposal_files(as_run_config(cfg))
    assert not (tmp_path / "executed").exists()


def test_processes_have_to_share_a_batch_equally(toy):
    check_training(as_run_config(toy), 2)
    with pytest.raises(ConfigError, match="total_batch_size is 4.* multiple of the 3 processes"):
        check_training(as_run_config(toy), 3)


def test_processes_have_to_share_a_batch_equally_in_its_parts(toy):
    cfg = toy.copy()
    cfg.train.micro_batches = 2
    check_training(as_run_config(cfg), 2)
    cfg.train.micro_batches = 4
    message = r"is 4, .* the 2 processes that share it, times 4 \(train.micro_batches\)"
    with pytest.raises(ConfigError, match=message):
        check_training(as_run_config(cfg), 2)


def test_statistics_of_trained_weights_are_not_measured_for_averaged_ones(yaml):
    cfg = yaml.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("toy_scenes_train",)
    cfg.TEST.PRECISE_BN.ENABLED = True
    check_training(as_run_config(cfg), 1)
    cfg.SOLVER.EMA_DECAY = 0.9
    with pytest.raises(ConfigError, match="PRECISE_BN.*SOLVER.EMA_DECAY"):
        check_training(as_run_config(cfg), 1)


def test_a_part_that_can_not_be_built_is_named():
    cfg = load_config(TOY, ["model.roi_heads.mask_stages=none"])
    with pytest.raises(ConfigError, match="^model.roi_heads can't be built: .*mask_stages='none'"):
        as_run_config(cfg).build_model()
    cfg = load_config(YAML, ["MODEL.META_ARCHITECTURE", "Nothing"])
    with pytest.raises(ConfigError, match="^MODEL can't be built: .*Nothing"):
        as_run_config(cfg).build_model()


def test_yaml_files_run_no_code(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "config.yaml"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.system ['touch {canary}']\n")
    with pytest.raises(ConfigError, match=r"config\.yaml asks for Python objects"):
        load_config(str(path))
    (tmp_path / "child.yaml").write_text("_BASE_: config.yaml\n")
    with pytest.raises(ConfigError, match=r"child\.yaml asks for Python objects"):
        load_config(str(tmp_path / "child.yaml"))
    assert not canary.exists()


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.py", b"def (:"),
        ("a.py", b"import nowhere_at_all"),
        ("a.py", b"\xff\xfe"),
        ("a.yaml", b""),
        ("a.yaml", b"[1, 2]"),
        ("a.yaml", b"MODEL: {"),
        ("a.yaml", b"_BASE_: a.yaml"),
    ],
)
def test_files_that_can_not_be_read_as_configs_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}\b"):
        load_config(str(tmp_path / name))


def test_a_yaml_config_imports_what_registers_its_data_once(tmp_path):
    (tmp_path / "my_data.py").write_text(
        "from detectron2.data import DatasetCatalog\nDatasetCatalog.register('my_data', list)\n"
    )
    path = tmp_path / "config.yaml"
    path.write_text(f"_BASE_: {YAML}\nDATASETS:\n  IMPORTS: [my_data.py]\n  TRAIN: [my_data]\n")
    try:
        for _ in range(2):
            check_training(as_run_config(load_config(str(path), ["DATASETS.TEST", "()"])), 1)
    finally:
        DatasetCatalog.remove("my_data")
    (tmp_path / "my_data.py").unlink()
    with pytest.raises(ConfigError, match="DATASETS.IMPORTS of .*'gone.py' can't be imported"):
        load_config(str(path), ["DATASETS.IMPORTS", "['gone.py']"])


def test_overrides_that_can_not_be_read_are_named():
    for override in ("train.max_iter=[1", "=5", "train=5", "model.roi_heads=abc"):
        with pytest.raises(ConfigError) as error:
            load_config(TOY, [override])
        assert override.partition("=")[0] in str(error.value)
    for opts in (["SOLVER.MAX_ITERS", "5"], ["SOLVER.MAX_ITER"], ["SOLVER.MAX_ITER", "abc"]):
        with pytest.raises(ConfigError, match="SOLVER.MAX_ITER"):
            load_config(YAML, opts)


def test_a_device_that_is_none_is_refused_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="train.device .*'cuda:x'"):
        load_config(TOY, ["train.device=cuda:x"])
    assert load_config(TOY, ["train.device=cuda:1"]).train.device == "cpu"
