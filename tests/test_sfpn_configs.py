"""The configs of SFPN's published rows: both sides of each, on the labels of the paper."""

import pytest
import torch
from detectron2.config import instantiate

from hybrid_cascade.engine import load_config

from .small_configs import CONFIGS

ROWS = [
    "faster_rcnn_r50",
    "faster_rcnn_r101",
    "mask_rcnn_r50",
    "mask_rcnn_r101",
    "cascade_rcnn_r101",
]


def load(name):
    return load_config(str(CONFIGS / "sfpn" / f"{name}_1x.py"))


def build(cfg):
    with torch.device("meta"):
        return instantiate(cfg.model)


@pytest.mark.parametrize("row", ROWS)
def test_the_two_sides_of_a_row_differ_in_the_pyramid_and_in_the_labels(row):
    fpn, sfpn = load(f"{row}_fpn"), load(f"{row}_sfpn")
    ours, baseline = build(sfpn).state_dict(), build(fpn).state_dict()
    added = {name for name in ours if name.startswith("semantic_branch.")}
    assert added and ours.keys() - added == baseline.keys()
    assert all(ours[name].shape == tensor.shape for name, tensor in baseline.items())
    for section in ("train", "optimizer", "lr_multiplier"):
        assert sfpn[section] == fpn[section]
    names = (fpn.dataloader.train.dataset.names, sfpn.dataloader.train.dataset.names)
    assert names == ("coco_2017_train", "coco_2017_train_stuffthings")
    for loader in (fpn.dataloader, sfpn.dataloader):
        loader.train.dataset.names, loader.test.dataset.names = "train", "test"
    assert fpn.dataloader == sfpn.dataloader


@pytest.mark.parametrize("row", ROWS)
def test_configs_that_quote_a_published_figure_learn_from_label_maps(row):
    cfg = load(f"{row}_sfpn")
    targets = build(cfg).semantic_targets
    assert (targets.source, targets.num_classes) == ("sem_seg", 183)


@pytest.mark.parametrize("family", ["faster", "mask"])
def test_the_configs_on_painted_labels_need_no_label_maps(family):
    cfg = load(f"{family}_rcnn_r50_sfpn_instances")
    assert cfg.dataloader.train.dataset.names == "coco_2017_train"
    targets = build(cfg).semantic_targets
    assert (targets.source, targets.num_classes) == ("instances", 81)


@pytest.mark.parametrize("side", ["fpn", "sfpn"])
@pytest.mark.parametrize("row", ROWS)
def test_boxes_are_learned_with_smooth_l1(row, side):
    heads = build(load(f"{row}_{side}"))
    predictors = heads.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, torch.nn.ModuleList) else [predictors]:
        assert (predictor.box_reg_loss_type, predictor.smooth_l1_beta) == ("smooth_l1", 1.0)
    assert heads.proposal_generator.smooth_l1_beta == pytest.approx(1 / 9)
