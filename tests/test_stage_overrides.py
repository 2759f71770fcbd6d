"""Overrides of the first stage's parts, after `use_htc_heads`, reach all stages."""

import inspect

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import (
    BaseMaskRCNNHead,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)
from torch import nn

from hybrid_cascade import use_htc_heads

from .test_swap_heads import CONFIGS, resnet

# Parts of a stage, the classes that take their arguments, and which arguments are a stage's own.
STAGE_PARTS = {
    "box_heads": ([FastRCNNConvFCHead], set()),
    "box_predictors": ([FastRCNNOutputLayers], {"box2box_transform"}),
    "mask_heads": ([MaskRCNNConvUpsampleHead, BaseMaskRCNNHead], set()),
    "proposal_matchers": ([Matcher], {"thresholds"}),
}


@pytest.mark.parametrize("name", ["mask_rcnn_fpn.py", "cascade_rcnn.py"])
@pytest.mark.parametrize("part", STAGE_PARTS)
def test_an_override_of_any_argument_of_the_first_stage_reaches_all_stages(part, name):
    config = CONFIGS[name]()
    use_htc_heads(config)
    classes, own = STAGE_PARTS[part]
    parameters = [p for c in classes for p in inspect.signature(c.__init__).parameters.values()]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = {p.name for p in parameters if p.kind not in variable} - {"self"}
    assert len(names) >= 3
    first, *others = config.roi_heads[part]
    for argument in names:
        before = [stage[argument] for stage in others]
        first[argument] = "overridden"
        after = [stage[argument] for stage in others]
        assert after == (before if argument in own else ["overridden"] * 2), argument


def test_the_transform_of_boxes_differs_in_its_weights_only():
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_htc_heads(config)
    config.roi_heads.box_predictors[0].box2box_transform.update(weights=[1, 2, 3, 4], scale_clamp=2)
    transforms = [p.box2box_transform for p in instantiate(config).roi_heads.box_predictor]
    assert [t.scale_clamp for t in transforms] == [2] * 3
    assert [list(t.weights)[0] for t in transforms] == [1, 20, 30]


def test_overrides_that_the_config_does_not_spell_out_change_all_stages_of_the_model():
    config = resnet("common/models/mask_rcnn_fpn.py")
    use_htc_heads(config)
    LazyConfig.apply_overrides(
        config,
        [
            "roi_heads.box_predictors.0.test_nms_thresh=0.3",
            "roi_heads.box_predictors.0.test_topk_per_image=300",
            "roi_heads.box_predictors.0.box_reg_loss_type=giou",
            "roi_heads.box_predictors.0.loss_weight={loss_box_reg: 10}",
            "roi_heads.box_heads.0.conv_dims=[32]",
            "roi_heads.box_heads.0.conv_norm=GN",
            "roi_heads.mask_heads.0.conv_norm=GN",
            "roi_heads.proposal_matchers.0.allow_low_quality_matches=True",
        ],
    )
    heads = instantiate(config).roi_heads
    for predictor, matcher in zip(heads.box_predictor, heads.proposal_matchers, strict=True):
        assert (predictor.test_nms_thresh, predictor.test_topk_per_image) == (0.3, 300)
        assert predictor.box_reg_loss_type == "giou"
        assert predictor.loss_weight == {"loss_box_reg": 10}
        assert matcher.allow_low_quality_matches
    for box_head, mask_head in zip(heads.box_head, heads.mask_head, strict=True):
        assert isinstance(box_head.conv1.norm, nn.GroupNorm)
        assert isinstance(mask_head.mask_fcn1.norm, nn.GroupNorm)


def test_stages_of_a_cascade_that_differ_stay_different():
    config = resnet("common/models/cascade_rcnn.py")
    config.roi_heads.box_predictors[1].test_score_thresh = 0.2
    config.roi_heads.box_heads[0].fc_dims = [1024, 1024]
    config.roi_heads.box_heads[2].fc_dims = [512, 1024]
    use_htc_heads(config)
    config.roi_heads.box_predictors[0].test_score_thresh = 0.1
    config.roi_heads.box_heads[0].fc_dims = [256, 1024]
    heads = instantiate(config).roi_heads
    assert [p.test_score_thresh for p in heads.box_predictor] == [0.1, 0.2, 0.1]
    assert [h.fc1.out_features for h in heads.box_head] == [256, 256, 512]
