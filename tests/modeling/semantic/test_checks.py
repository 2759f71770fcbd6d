from types import SimpleNamespace

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import GeneralizedRCNN
from omegaconf import OmegaConf

from hybrid_cascade.modeling import check_semantic_features
from hybrid_cascade.modeling.semantic.checks import check_panoptic_output


def test_targets_and_branch_must_agree_on_the_classes(tiny_config):
    config = tiny_config("htc_toy")
    config.semantic_targets.num_classes = 12
    with pytest.raises(ValueError, match="num_classes=12 differs from semantic_branch"):
        instantiate(config)


def test_heads_that_ask_for_semantic_features_need_a_branch_when_built(tiny_config):
    config = tiny_config("htc_toy")
    config._target_ = GeneralizedRCNN
    for key in ("semantic_branch", "semantic_targets", "stuff_labels", "combine_stuff_area_thresh"):
        config.pop(key)
    model = instantiate(config)
    with pytest.raises(ValueError, match="roi_heads.semantic_fusion to 'none'"):
        check_semantic_features(model)


def test_a_branch_that_makes_another_feature_is_refused_when_built(tiny_config):
    config = tiny_config("htc_toy")
    config.roi_heads.semantic_in_feature = "context"
    with pytest.raises(ValueError, match="makes the feature 'context'"):
        instantiate(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stuff_labels": []}, r"needs stuff.*stuff_labels=\[\]"),
        ({"semantic_targets.source": "instances"}, "source is 'instances'"),
        ({"stuff_labels": [5, 9]}, r"has \[9\], but .* num_classes=9"),
        ({"combine_overlap_thresh": 1.0}, "combine_overlap_thresh=1.0"),
        ({"combine_stuff_area_thresh": 0}, "combine_stuff_area_thresh=0"),
    ],
)
def test_what_panoptic_output_cannot_do_is_refused_when_built(tiny_config, changes, message):
    config = tiny_config("htc_toy")
    config.output_panoptic_seg = True
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with torch.device("meta"):
        with pytest.raises(ValueError, match=message):
            instantiate(config)
        config.output_panoptic_seg = False
        instantiate(config)


def test_panoptic_output_of_the_boxes_of_mnc_is_refused():
    model = SimpleNamespace(
        semantic_branch=SimpleNamespace(num_classes=9),
        semantic_targets=SimpleNamespace(source="auto"),
        stuff_labels=[5],
        combine_overlap_thresh=0.5,
        combine_stuff_area_thresh=1,
        roi_heads=SimpleNamespace(test_output="boxes"),
    )
    with pytest.raises(ValueError, match="needs masks"):
        check_panoptic_output(model)


def test_panoptic_output_without_masks_is_refused_when_built(tiny_config):
    config = tiny_config("faster_rcnn_sfpn_toy")
    config.output_panoptic_seg = True
    with pytest.raises(ValueError, match="needs masks"):
        instantiate(config)
