from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.layers import Conv2d
from omegaconf import OmegaConf

from hybrid_cascade.engine import load_config
from hybrid_cascade.engine.config_files import _arguments

CONFIGS = Path(__file__).parent.parent.parent / "configs"
TOY = str(CONFIGS / "quick_start" / "htc_toy.py")
YAML = str(CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")


def test_both_kinds_load_with_overrides():
    lazy = load_config(TOY, ["train.max_iter=3", "model.roi_heads.interleaved=False"])
    assert lazy.train.max_iter == 3 and lazy.model.roi_heads.interleaved is False
    yaml = load_config(YAML, ["SOLVER.MAX_ITER", "3", "MODEL.ROI_HTC_HEAD.INTERLEAVED", "False"])
    assert isinstance(yaml, CfgNode)
    assert yaml.SOLVER.MAX_ITER == 3 and yaml.MODEL.ROI_HTC_HEAD.INTERLEAVED is False


def test_train_sections_of_detectron2s_own_configs_get_our_defaults(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "train = dict(max_iter=7)\nmodel = dataloader = optimizer = lr_multiplier = {}\n"
    )
    cfg = load_config(str(path))
    assert cfg.train.max_iter == 7 and cfg.train.clip_gradients.enabled is False


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_iters=5", "'train.max_iters'; there is: max_iter"),
        ("trian.max_iter=5", "'trian.max_iter'; there is: train"),
        ("model.roi_heads.box_heads.7.fc_dims=[3]", "'model.roi_heads.box_heads.7.fc_dims'"),
        ("train.amp.enable=True", "'train.amp.enable'; there is: enabled"),
        ("model.semantic_branch.num_conv=3", "num_conv'; there is: num_convs"),
        # Handed on as **kwargs to Detectron2's classes.
        ("model.roi_heads.interleave=True", "interleave'; there is: interleaved"),
        ("model.no_such_key=5", "'model.no_such_key'; there is: "),
    ],
)
def test_an_unknown_key_in_an_override_is_an_error_that_names_it(override, message):
    with pytest.raises(KeyError) as error:
        load_config(TOY, [override])
    assert message in str(error.value)


def test_colours_in_another_order_than_the_model_takes_are_an_error():
    with pytest.raises(ValueError, match=r"train.mapper.image_format is 'RGB', but .* is 'BGR'"):
        load_config(TOY, ["model.input_format=BGR"])
    load_config(TOY, ["model.input_format=BGR", "dataloader.train.mapper.image_format=BGR"])


@pytest.mark.parametrize(
    "path",
    ["quick_start/htc_toy", "mnc/mnc_vgg16_5stage_voc", "htc/htc_vitdet_b_3x"]
    + ["htc/htc_timm_convnext_t_fpn_3x", "ssd/ssd300_vgg16", "cascade_mask_rcnn/x101"],
)
def test_no_argument_that_a_config_has_is_taken_for_unknown(path):
    path = path.replace("x101", "cascade_mask_rcnn_x101_64x4d_fpn_20e")
    pending, seen = [load_config(str(CONFIGS / f"{path}.py"))], 0
    while pending:
        node = pending.pop()
        pending += [x for x in (node.values() if hasattr(node, "values") else node)]
        pending = [x for x in pending if OmegaConf.is_config(x)]
        if "_target_" in node:
            known = _arguments(node["_target_"])
            assert known is None or set(node) - {"_target_"} <= set(known)
            seen += known is not None
    assert seen > 10


def test_arguments_that_end_nobody_knows_where_are_let_through():
    path = str(CONFIGS / "htc/htc_timm_convnext_t_fpn_3x.py")
    load_config(path, ["model.backbone.bottom_up.any_argument_of_timm=1"])


def test_a_layer_may_take_from_its_kwargs_what_its_base_does_not_know():
    assert _arguments(Conv2d) is None  # "norm" and "activation"


def test_an_argument_that_the_config_leaves_out_can_be_set():
    cfg = load_config(TOY, ["model.roi_heads.average_masks=False"])
    assert cfg.model.roi_heads.average_masks is False


def test_an_unknown_key_in_the_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "config.py"
    sections = "model = dataloader = optimizer = lr_multiplier = {}\n"
    path.write_text("train = dict(max_iters=7)\n" + sections)
    with pytest.raises(KeyError, match="train.max_iters"):
        load_config(str(path))
    path = tmp_path / "config.yaml"
    path.write_text("MODEL:\n  ROI_HTC_HEAD:\n    INTERLEAVE: True\n")
    with pytest.raises(KeyError, match="MODEL.ROI_HTC_HEAD.INTERLEAVE"):
        load_config(str(path))


def test_files_that_are_no_configs_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.py"):
        load_config("nowhere.py")
    path = tmp_path / "config.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"config.json is neither"):
        load_config(str(path))
    path = tmp_path / "part.py"
    path.write_text("model = {}\n")
    with pytest.raises(ValueError, match="part.py defines no `train`"):
        load_config(str(path))


def test_an_override_without_a_value_is_refused():
    with pytest.raises(ValueError, match="'train.max_iter' is not of the form"):
        load_config(TOY, ["train.max_iter", "5"])
