import pytest
import torch
from detectron2.config import get_cfg, instantiate
from omegaconf import OmegaConf

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.engine import with_test_time_options
from hybrid_cascade.engine.config_files import TRAIN_DEFAULTS
from hybrid_cascade.modeling import (
    MNCROIHeads,
    RCNNEnsemble,
    RCNNWithTestTimeAugmentation,
    VotingEnsemble,
)

MODELS = ["mnc_toy", "htc_toy", "mask_rcnn_toy"]


@pytest.fixture
def model(request, tiny_config):
    return instantiate(tiny_config(request.param)).eval()


@pytest.fixture
def other_checkpoint(model, tmp_path):
    """Of a model whose weights are all larger by 1."""
    path = str(tmp_path / "other.pth")
    torch.save({"model": {k: v + 1 for k, v in model.state_dict().items()}}, path)
    return path


def lazy(**options):
    cfg = OmegaConf.create({"train": TRAIN_DEFAULTS})
    cfg.train.test_time.update(options)
    return cfg


def yaml(*overrides):
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    cfg.merge_from_list(overrides)
    return cfg


VIEWS = [
    lazy(short_sides=[96, 128], max_size=500, flip=True),
    yaml(
        *("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (96, 128)),
        *("TEST.AUG.MAX_SIZE", 500, "TEST.AUG.FLIP", True),
    ),
]


@pytest.mark.parametrize("model", MODELS[:1], indirect=True)
@pytest.mark.parametrize("cfg", [lazy(), yaml()])
def test_without_options_the_model_stays(cfg, model):
    assert with_test_time_options(cfg, model) is model


@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_further_checkpoints_become_models_of_their_own(model, other_checkpoint):
    is_mnc = isinstance(model.roi_heads, MNCROIHeads)
    for cfg in (lazy(checkpoints=[other_checkpoint]), yaml("TEST.CHECKPOINTS", [other_checkpoint])):
        joined = with_test_time_options(cfg, model)
        assert type(joined) is (VotingEnsemble if is_mnc else RCNNEnsemble) and not joined.training
        assert joined.models[0] is model
        first, second = (m.proposal_generator.rpn_head.conv.bias for m in joined.models)
        assert torch.equal(second, first + 1)


@pytest.mark.parametrize("model", MODELS, indirect=True)
@pytest.mark.parametrize("cfg", VIEWS)
def test_views_reach_the_model(cfg, model):
    joined = with_test_time_options(cfg, model)
    if isinstance(joined, VotingEnsemble):
        assert [r.short_edge_length for r in joined.resizes] == [(96, 96), (128, 128)]
        assert {r.max_size for r in joined.resizes} == {500}
        assert joined.flips == (False, True)
        return
    assert isinstance(joined, RCNNWithTestTimeAugmentation) and joined.model is model
    views = joined.tta_mapper
    assert (views.min_sizes, views.max_size, views.flip) == ([96, 128], 500, True)
    # What Detectron2 reads of a CfgNode is the model's.
    assert joined.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5 and joined.cfg.MODEL.MASK_ON


@pytest.mark.parametrize("model", MODELS, indirect=True)
@pytest.mark.parametrize(
    "cfg",
    [
        lazy(short_sides=[96, 128], max_size=[144, 192], flip=True),
        yaml(
            *("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (96, 128)),
            *("TEST.AUG.MAX_SIZES", (144, 192), "TEST.AUG.MAX_SIZE", 1),
        ),
    ],
)
def test_each_size_of_a_config_can_have_a_bound_of_its_own(cfg, model):
    joined = with_test_time_options(cfg, model)
    if isinstance(joined, VotingEnsemble):
        assert [r.max_size for r in joined.resizes] == [144, 192]
        return
    image = {"image": torch.zeros(3, 100, 1000), "height": 100, "width": 1000}
    assert [v["image"].shape[2] for v in joined.tta_mapper(image)][::2] == [144, 192]


@pytest.mark.parametrize("model", MODELS[1:], indirect=True)
def test_each_view_is_seen_by_the_ensemble(model, other_checkpoint):
    joined = with_test_time_options(lazy(checkpoints=[other_checkpoint], flip=True), model)
    assert isinstance(joined, RCNNWithTestTimeAugmentation)
    assert isinstance(joined.model, RCNNEnsemble) and not joined.training


@pytest.mark.parametrize("model", MODELS[:1], indirect=True)
def test_a_missing_checkpoint_is_named(model):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        with_test_time_options(lazy(checkpoints=["nowhere.pth"]), model)


def test_models_that_cannot_join_are_refused(tiny_config):
    with pytest.raises(ValueError, match="a Linear"):
        with_test_time_options(lazy(flip=True), torch.nn.Linear(1, 1))
    model = instantiate(tiny_config("htc_toy"))
    for output in ("output_sem_seg", "output_panoptic_seg"):
        setattr(model, output, True)
        with pytest.raises(ValueError, match=f"{output}=False"):
            with_test_time_options(lazy(flip=True), model)
        setattr(model, output, False)
