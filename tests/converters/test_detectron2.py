"""Detectron2's models as the start of a cascade's training."""

import torch

from hybrid_cascade.converters import DETECTRON2, convert


def test_mask_rcnn_fills_every_stage_and_the_rest_starts_fresh(mask_rcnn, htc):
    result = convert(DETECTRON2, mask_rcnn.state_dict(), htc.state_dict())
    assert set(result.state_dict) | set(result.fresh) == set(htc.state_dict())
    for stage in range(3):
        for name in ("box_head.{}.fc1", "box_predictor.{}.cls_score", "mask_head.{}.mask_fcn1"):
            assert f"roi_heads.{name.format(stage)}.weight" in result.state_dict
    modules = {name.rpartition(".")[0] for name in result.fresh}
    fresh_roi_heads = {m.removeprefix("roi_heads.") for m in modules if m.startswith("roi_heads.")}
    # The boxes of Mask R-CNN are regressed for each class.
    assert fresh_roi_heads == {
        *(f"box_predictor.{stage}.bbox_pred" for stage in range(3)),
        "mask_information_flow.0",
        "mask_information_flow.1",
    }
    assert all(m.startswith(("roi_heads.", "semantic_branch.")) for m in modules)


def test_stages_of_a_cascade_keep_their_numbers(mask_rcnn, htc):
    weights = dict(mask_rcnn.state_dict())
    for name in [n for n in weights if n.startswith("roi_heads.box")]:
        kind, _, what = name.removeprefix("roi_heads.").partition(".")
        tensor = weights.pop(name)
        for stage in range(3):
            weights[f"roi_heads.{kind}.{stage}.{what}"] = tensor
    result = convert(DETECTRON2, weights, htc.state_dict())
    assert ("roi_heads.box_head.2.fc1.bias",) * 2 in result.mapped
    assert ("roi_heads.mask_head.deconv.bias", "roi_heads.mask_head.2.deconv.bias") in result.mapped


def test_buffers_that_are_computed_from_the_config_are_not_used(mask_rcnn):
    weights = {**mask_rcnn.state_dict(), "pixel_mean": torch.zeros(3, 1, 1)}
    weights["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    assert len(convert(DETECTRON2, weights).left) == 2
