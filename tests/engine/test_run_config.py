from pathlib import Path

import pytest
import yaml

from hybrid_cascade.engine import as_run_config, load_config, test_augmentations, test_dataset_names

# Functions of the package, which pytest would take for tests by their names.
test_augmentations.__test__ = test_dataset_names.__test__ = False

CONFIGS = Path(__file__).parent.parent.parent / "configs"
LAZY = (CONFIGS / "quick_start" / "htc_toy.py", "{lazy}={value}")
YAML = (CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml", "{yaml} {value}")

VALUES = [
    # name, key of a LazyConfig, key of a CfgNode, value
    ("output_dir", "train.output_dir", "OUTPUT_DIR", "somewhere"),
    ("initial_weights", "train.init_checkpoint", "MODEL.WEIGHTS", "some.pth"),
    ("num_panels", "train.num_panels", "TEST.NUM_PANELS", 3),
    ("writes_report", "train.report.enabled", "TEST.REPORT.ENABLED", False),
    ("report_images", "train.report.images", "TEST.REPORT.IMAGES", 5),
    ("report_stage_images", "train.report.stage_images", "TEST.REPORT.STAGE_IMAGES", 7),
    ("evaluates_sem_seg", "train.evaluate_sem_seg", "TEST.EVALUATE_SEM_SEG", True),
    ("channels_last", "train.channels_last", "MODEL.CHANNELS_LAST", True),
    ("inference_dtype", "train.inference.dtype", "TEST.INFERENCE.DTYPE", "auto"),
    ("fuses_layers", "train.inference.fuse_layers", "TEST.INFERENCE.FUSE_LAYERS", False),
    ("freeze", "train.freeze", "SOLVER.FREEZE", ["backbone", "roi_heads"]),
    ("losses", "train.losses", "SOLVER.LOSSES", ["loss_rpn_*"]),
]


def load(kind, *values):
    path, override = kind
    opts = [
        override.format(lazy=lazy, yaml=yaml, value=str(value).replace(" ", ""))
        for _, lazy, yaml, value in values
    ]
    return load_config(str(path), " ".join(opts).split())


@pytest.mark.parametrize("kind", [LAZY, YAML], ids=["lazy", "yaml"])
def test_both_kinds_of_config_give_the_values_under_the_same_names(kind):
    run_config = as_run_config(load(kind, *VALUES))
    for name, _, _, value in VALUES:
        assert getattr(run_config, name) == value


@pytest.mark.parametrize("kind", [LAZY, YAML], ids=["lazy", "yaml"])
def test_values_are_replaced_in_a_copy_of_the_config(kind):
    run_config = as_run_config(load(kind))
    before = [getattr(run_config, name) for name, *_ in VALUES]
    replaced = run_config.replaced(**{name: value for name, _, _, value in VALUES})
    assert type(replaced.cfg) is type(run_config.cfg)
    assert [getattr(replaced, name) for name, *_ in VALUES] == [value for *_, value in VALUES]
    assert [getattr(run_config, name) for name, *_ in VALUES] == before
    with pytest.raises(KeyError, match="no_such_value"):
        run_config.replaced(no_such_value=1)


def test_a_lazy_config_without_weights_starts_from_none():
    cfg = load_config(str(LAZY[0]))
    cfg.train.init_checkpoint = None
    assert as_run_config(cfg).initial_weights == ""


@pytest.mark.parametrize("names", ["one", "[one,two]"])
def test_the_datasets_to_evaluate_on_come_as_a_list(names):
    lazy = load_config(str(LAZY[0]), [f"dataloader.test.dataset.names={names}"])
    yaml = load_config(str(YAML[0]), ["DATASETS.TEST", str(tuple(names.strip("[]").split(",")))])
    expected = names.strip("[]").split(",")
    assert test_dataset_names(lazy) == test_dataset_names(yaml) == expected


def test_both_kinds_of_config_resize_test_images_and_say_the_order_of_the_colours():
    resizes, colours = test_augmentations(load_config(str(YAML[0]), ["INPUT.FORMAT", "BGR"]))
    assert [type(resize).__name__ for resize in resizes] == ["ResizeShortestEdge"]
    assert colours == "BGR"
    assert test_augmentations(load_config(str(LAZY[0]))) == ([], "RGB")


def test_what_the_trainer_reads_is_the_same_for_both_kinds_of_config():
    lazy = load_config(str(CONFIGS / "htc" / "htc_r50_fpn_1x.py"))
    yaml = load_config(str(YAML[0]))
    lazy, yaml = (as_run_config(cfg).trainer_config() for cfg in (lazy, yaml))
    for section, key in [
        *(("SOLVER", key) for key in ("IMS_PER_BATCH", "MAX_ITER")),
        *(("DATASETS", key) for key in ("TRAIN", "TEST")),
        ("MODEL", "DEVICE"),
    ]:
        assert lazy[section][key] == yaml[section][key], (section, key)
    assert lazy.is_frozen() and yaml.is_frozen()


@pytest.mark.parametrize("kind", [LAZY, YAML], ids=["lazy", "yaml"])
def test_another_test_dataset_takes_the_place_of_the_configs(kind):
    run_config = as_run_config(load(kind))
    before = run_config.test_dataset_names
    assert run_config.with_test_dataset("other").test_dataset_names == ["other"]
    assert run_config.test_dataset_names == before


@pytest.mark.parametrize("kind", [LAZY, YAML], ids=["lazy", "yaml"])
def test_the_text_of_a_config_is_yaml_with_its_values(kind):
    run_config = as_run_config(load(kind, *VALUES))
    values = yaml.safe_load(run_config.text)
    for _, *keys, expected in VALUES:
        value = values
        for key in keys[kind is YAML].split("."):
            value = value[key]
        assert value == expected


def test_functions_and_classes_of_a_lazy_config_stand_in_its_text_by_their_names():
    cfg = load_config(str(LAZY[0]))
    cfg.optimizer.params.overrides = {"a": len}
    text = yaml.safe_load(as_run_config(cfg).text)
    assert text["model"]["_target_"].startswith("hybrid_cascade.modeling.semantic.")
    assert text["optimizer"]["params"]["overrides"] == {"a": "builtins.len"}
