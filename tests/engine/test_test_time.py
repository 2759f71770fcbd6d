import pytest
import torch
from detectron2.config import get_cfg, instantiate
from omegaconf import OmegaConf

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.engine import with_test_time_options
from hybrid_cascade.engine.config_files import TRAIN_DEFAULTS
from hybrid_cascade.modeling import (
    RCNNEnsemble,
    RCNNWithTestTimeAugmentation,
    VotingEnsemble,
)


@pytest.fixture
def model(tiny_config):
    return instantiate(tiny_config("mnc_toy")).eval()


def config(**options):
    cfg = OmegaConf.create({"train": TRAIN_DEFAULTS})
    cfg.train.test_time.update(options)
    return cfg


def test_without_options_the_model_stays(model):
    assert with_test_time_options(config(), model) is model
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    assert with_test_time_options(cfg, model) is model


def test_further_checkpoints_become_models_of_their_own(model, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": {k: v + 1 for k, v in model.state_dict().items()}}, path)
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.TEST.CHECKPOINTS = [str(path)]
    for joined in (
        with_test_time_options(config(checkpoints=[str(path)]), model),
        with_test_time_options(cfg, model),
    ):
        assert isinstance(joined, VotingEnsemble) and not joined.training
        first, second = (m.roi_heads.predictor.cls_score.bias for m in joined.models)
        assert torch.equal(second, first + 1)
        assert joined.models[0] is model


def test_views_reach_the_ensemble_from_both_kinds_of_config(model):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.TEST.AUG.ENABLED = True
    cfg.TEST.AUG.MIN_SIZES = (96, 128)
    cfg.TEST.AUG.MAX_SIZE = 500
    cfg.TEST.AUG.FLIP = True
    for options in (cfg, config(short_sides=[96, 128], max_size=500, flip=True)):
        joined = with_test_time_options(options, model)
        assert [r.short_edge_length for r in joined.resizes] == [(96, 96), (128, 128)]
        assert {r.max_size for r in joined.resizes} == {500}
        assert joined.flips == (False, True)


def test_a_missing_checkpoint_is_named(model):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        with_test_time_options(config(checkpoints=["nowhere.pth"]), model)


def yaml_config(**keys):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    for key, value in keys.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


@pytest.mark.parametrize("name", ["htc_toy", "mask_rcnn_toy"])
def test_checkpoints_of_an_rcnn_are_averaged(name, tiny_config, tmp_path):
    model = instantiate(tiny_config(name)).eval()
    path = str(tmp_path / "other.pth")
    torch.save({"model": {k: v + 1 for k, v in model.state_dict().items()}}, path)
    for cfg in (config(checkpoints=[path]), yaml_config(TEST__CHECKPOINTS=[path])):
        joined = with_test_time_options(cfg, model)
        assert type(joined) is RCNNEnsemble and not joined.training
        assert joined.models[0] is model
        first, second = (m.proposal_generator.rpn_head.conv.bias for m in joined.models)
        assert torch.equal(second, first + 1)
    joined = with_test_time_options(config(checkpoints=[path], flip=True), model)
    assert isinstance(joined, RCNNWithTestTimeAugmentation)
    assert isinstance(joined.model, RCNNEnsemble) and not joined.training


@pytest.mark.parametrize("name", ["htc_toy", "mask_rcnn_toy"])
def test_views_of_an_rcnn_are_augmented(name, tiny_config):
    model = instantiate(tiny_config(name)).eval()
    lazy = config(short_sides=[96, 128], max_size=500, flip=True)
    yaml = yaml_config(
        TEST__AUG__ENABLED=True,
        TEST__AUG__MIN_SIZES=(96, 128),
        TEST__AUG__MAX_SIZE=500,
        TEST__AUG__FLIP=True,
    )
    for cfg in (lazy, yaml):
        joined = with_test_time_options(cfg, model)
        assert isinstance(joined, RCNNWithTestTimeAugmentation) and joined.model is model
        views = joined.tta_mapper
        assert (views.min_sizes, views.max_size, views.flip) == ([96, 128], 500, True)
        # What Detectron2 reads of a CfgNode is the model's.
        assert joined.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5 and joined.cfg.MODEL.MASK_ON


def test_models_that_cannot_join_are_refused(tiny_config):
    with pytest.raises(ValueError, match="a Linear"):
        with_test_time_options(config(flip=True), torch.nn.Linear(1, 1))
    model = instantiate(tiny_config("htc_toy"))
    for output in ("output_sem_seg", "output_panoptic_seg"):
        setattr(model, output, True)
        with pytest.raises(ValueError, match=f"{output}=False"):
            with_test_time_options(config(flip=True), model)
        setattr(model, output, False)
