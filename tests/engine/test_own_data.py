"""The templates of configs/own_data, on toy scenes in files with category ids of their own."""

import json
import math
import os
from dataclasses import fields

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from hybrid_cascade.data import DatasetError, draw_toy_scenes
from hybrid_cascade.engine import ConfigError, Trainer, as_run_config, load_config
from hybrid_cascade.engine import own_data as module
from hybrid_cascade.engine.own_data import OwnData, _rules, default_epochs

from ..small_configs import CONFIGS

HTC = str(CONFIGS / "own_data" / "htc_r50_fpn.py")
BOXES = str(CONFIGS / "own_data" / "cascade_rcnn_r50_fpn.py")
IDS = {1: 900, 2: 0, 3: 17, 4: 5, 5: 1_000_000}
# From scratch, with few channels, on small images.
TINY = [
    "train.init_checkpoint=",
    "train.num_panels=1",
    "model.backbone.bottom_up.freeze_at=0",
    "model.backbone.bottom_up.stem.norm=BN",
    "model.backbone.bottom_up.stages.norm=BN",
    "model.backbone.out_channels=16",
    "model.proposal_generator.post_nms_topk=[20,10]",
    "model.roi_heads.batch_size_per_image=8",
    "model.roi_heads.box_heads.0.fc_dims=[16,16]",
    "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=64",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "optimizer.lr=0.0001",
]
TINY_MASKS = ["model.roi_heads.mask_heads.0.conv_dims=[16,16]", "model.semantic_branch.conv_dim=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy scenes whose files are changed by the tests: 4 images to train on, one of them empty."""
    root = tmp_path_factory.mktemp("own") / "scenes"
    draw_toy_scenes(str(root), num_train=4, num_val=3, image_size=(64, 96))
    return root


@pytest.fixture
def write(folder, tmp_path):
    """Write both files with the category ids of `IDS`, changed, and return their overrides."""

    def write(change=lambda content: None):
        overrides = []
        for split in ("train", "val"):
            path = folder / "annotations" / f"instances_{split}.json"
            content = json.loads(path.read_text())
            for record in content["categories"]:
                record["id"] = IDS[record["id"]]
            for record in content["annotations"]:
                record["category_id"] = IDS[record["category_id"]]
            change(content)
            path = tmp_path / f"{split}.json"
            path.write_text(json.dumps(content))
            overrides += [f"data.{split}={path}", f"data.{split}_images={folder / split}"]
        return overrides

    yield write
    for name in [name for name in DatasetCatalog.list() if name.startswith(str(tmp_path))]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def without_masks(content):
    for record in content["annotations"]:
        del record["segmentation"]


def train(config_file, folder, *overrides):
    os.makedirs(folder)
    cfg = load_config(config_file, [*TINY, f"train.output_dir={folder}", *overrides])
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return cfg


def test_htc_trains_and_evaluates_on_files_alone(write, tmp_path):
    cfg = train(HTC, tmp_path / "out", *write(), *TINY_MASKS, "data.epochs=1")
    assert cfg.train.max_iter == 2  # 3 images with objects, 2 in a step
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) == {"bbox", "segm"}
    names = MetadataCatalog.get(str(tmp_path / "train.json")).thing_classes
    assert [f"AP-{name}" in results["segm"] for name in names] == [True] * 5
    # Classes are numbered in the order of their ids.
    assert names == ["buoy", "sail", "tent", "ball", "kite"]
    assert list((tmp_path / "out" / "panels").iterdir())


def test_the_twin_trains_on_boxes_alone(write, tmp_path):
    train(BOXES, tmp_path / "out", *write(without_masks), "train.max_iter=1", "train.num_panels=0")
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {"bbox"}


def test_boxes_alone_are_refused_for_masks_and_the_twin_is_named(write):
    with pytest.raises(ConfigError, match=r"train.json'.*no masks.*cascade_rcnn_r50_fpn.py"):
        load_config(HTC, write(without_masks))


def test_classes_are_counted_and_painted_maps_get_one_more(write):
    model = load_config(HTC, write()).model
    assert (model.roi_heads.num_classes, model.semantic_branch.num_classes) == (5, 6)
    assert model.roi_heads.box_predictors[2].num_classes == model.semantic_targets.num_things == 5


@pytest.mark.parametrize("run_lengths, expected", [(False, "polygon"), (True, "bitmask")])
def test_the_mapper_reads_masks_as_the_file_has_them(write, run_lengths, expected):
    def change(content):  # crowds are run lengths in any case, and are not read
        objects = [x for x in content["annotations"] if not x["iscrowd"]]
        if run_lengths:
            objects[-1]["segmentation"] = {"size": [64, 96], "counts": [0, 64 * 96]}

    mapper = load_config(HTC, write(change)).dataloader.train.mapper
    assert mapper.instance_mask_format == expected


def test_the_schedule_follows_the_images_and_the_processes(write, monkeypatch):
    cfg = load_config(HTC, [*write(), "data.epochs=1000"])
    assert cfg.dataloader.train.total_batch_size == 2 and cfg.optimizer.lr == 0.0025
    assert (cfg.train.max_iter, cfg.train.eval_period) == (1500, 150)
    assert cfg.train.checkpointer.period == 150
    assert cfg.lr_multiplier.warmup_length == 0.1
    assert load_config(HTC, write()).train.max_iter == 150  # 100 epochs
    everything = [*write(), "dataloader.train.dataset.filter_empty=False"]
    assert load_config(HTC, everything).train.max_iter == 200
    monkeypatch.setattr(module.comm, "get_world_size", lambda: 4)
    cfg = load_config(HTC, [*write(), "data.epochs=8000"])
    assert cfg.dataloader.train.total_batch_size == 8 and cfg.optimizer.lr == 0.01
    assert cfg.train.max_iter == 3000 and cfg.lr_multiplier.warmup_length == 0.1
    long = load_config(HTC, [*write(), "data.epochs=80000"])
    assert long.lr_multiplier.warmup_length == 1000 / 30000


def test_fewer_images_are_seen_more_often():
    assert default_epochs(118_287) == default_epochs(10**6) == 12
    assert default_epochs(20) == default_epochs(200) == 100
    assert math.isclose(default_epochs(118_287 / 8), 24)


COMPUTED = {
    "train.max_iter": 7,
    "train.eval_period": 3,
    "train.checkpointer.period": 3,
    "optimizer.lr": 0.5,
    "lr_multiplier.warmup_length": 0.25,
    "dataloader.train.total_batch_size": 6,
    "dataloader.train.num_workers": 9,
    "dataloader.train.mapper.instance_mask_format": "bitmask",
    "dataloader.train.dataset.names": "toy_scenes_train",
    "model.roi_heads.num_classes": 8,
    "model.semantic_branch.num_classes": 33,
}


@pytest.mark.parametrize("key", COMPUTED)
def test_a_value_on_the_command_line_wins(write, key):
    cfg = load_config(HTC, [*write(), f"{key}={COMPUTED[key]}"])
    for part in key.split("."):
        cfg = cfg[part]
    assert cfg == COMPUTED[key]


def test_values_that_depend_on_others_follow_those_of_the_command_line(write):
    cfg = load_config(
        HTC,
        [*write(), "train.max_iter=70", "dataloader.train.total_batch_size=32"],
    )
    assert cfg.train.eval_period == 7 and cfg.optimizer.lr == 0.04
    assert load_config(HTC, [*write(), "model.roi_heads.num_classes=8"]).model == (
        load_config(HTC, ["model.roi_heads.num_classes=8"]).model
    )


def test_all_keys_of_the_data_and_all_computed_values_are_documented():
    text = (CONFIGS.parent / "docs" / "own_data.md").read_text()
    keys = [f"data.{field.name}" for field in fields(OwnData)]
    keys += _rules(OmegaConf.create(), OwnData(), {})
    assert len(keys) > len(COMPUTED) and COMPUTED.keys() < set(keys)
    assert [key for key in keys if key not in text] == []


@pytest.mark.parametrize("given", [[], [0], [1], [0, 1], [2], [0, 1, 2], [0, 2, 3]])
def test_missing_data_are_answered_with_the_whole_command(write, given):
    overrides = write()
    missing = [x.partition("=")[0] for i, x in enumerate(overrides) if i not in given]
    with pytest.raises(ConfigError) as error:
        load_config(HTC, [overrides[i] for i in given])
    message = str(error.value)
    assert message.startswith(" and ".join(missing) + " ")
    assert f"./train_net.py --config-file {HTC} data.train=" in message


def test_an_evaluation_needs_no_data_to_train_on_and_a_training_does(write):
    cfg = load_config(HTC, write()[2:])
    assert cfg.model.roi_heads.num_classes == 5
    with pytest.raises(ConfigError, match="^data.train and data.train_images are missing"):
        Trainer(cfg)


def test_the_names_of_the_classes_are_known_before_images_are_loaded(write):
    cfg = load_config(HTC, write()[2:])
    [name] = as_run_config(cfg).test_dataset_names
    assert MetadataCatalog.get(name).thing_classes == ["buoy", "sail", "tent", "ball", "kite"]
    assert len(DatasetCatalog.get(name)) == 3


def test_without_data_the_number_of_classes_gives_the_model():
    cfg = load_config(HTC, ["model.roi_heads.num_classes=3"])
    assert cfg.model.semantic_branch.num_classes == 4
    with pytest.raises(ConfigError, match="^data.train and .* are missing"):
        Trainer(cfg)


@pytest.mark.parametrize(
    "override, reason",
    [
        ("data.train=nowhere.json", "data.train is 'nowhere.json', but has to be a file"),
        ("data.val_images=nowhere", "data.val_images is 'nowhere', but has to be the folder"),
        ("data.epochs=0", "data.epochs is 0, but"),
        ("data.epochs=nan", "data.epochs is nan, but"),
        ("data.epochs=many", "data.epochs is 'many', but"),
        ("data.trains=a.json", "'data.trains'; there is: .*train"),
        ("train.max_iter=x", "train.max_iter is 'x', but"),
        ("dataloader.train.total_batch_size=0", "total_batch_size is 0, but"),
    ],
)
def test_values_that_cannot_be_meant_are_named(write, override, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(HTC, [*write(), override])


def test_a_broken_file_is_named(write):
    overrides = write(lambda content: content.pop("categories"))
    with pytest.raises(DatasetError, match="train.json' is not usable: `categories` is None"):
        load_config(HTC, overrides)


def test_one_file_with_two_folders_is_refused(write):
    overrides = write()
    overrides[2] = overrides[0].replace("data.train", "data.val")
    with pytest.raises(ConfigError, match=r"data.val_images is .*in use with another folder"):
        load_config(HTC, overrides)
