"""`convert`: missing parameters, wrong shapes, other classes, foreign files."""

import pytest
import torch

from hybrid_cascade.converters import DETECTRON2, MMDET, convert


def test_layers_for_other_classes_start_fresh(mask_rcnn, htc):
    weights = dict(mask_rcnn.state_dict())
    weights["roi_heads.box_predictor.cls_score.weight"] = torch.empty(4, 1024, device="meta")
    fresh = convert(DETECTRON2, weights, htc.state_dict()).fresh
    assert "other classes" in fresh["roi_heads.box_predictor.1.cls_score.weight"]


def test_other_wrong_shapes_are_an_error(mask_rcnn, htc):
    weights = dict(mask_rcnn.state_dict())
    weights["roi_heads.box_head.fc1.weight"] = torch.empty(1024, 8, device="meta")
    with pytest.raises(ValueError, match="Wrong shapes"):
        convert(DETECTRON2, weights, htc.state_dict())


def test_a_foreign_file_is_refused():
    with pytest.raises(ValueError, match="Nothing in the file.*stem.conv1.weight"):
        convert(MMDET, {"stem.conv1.weight": torch.zeros(1)})


def test_a_parameter_without_a_value_is_an_error(golden_file, tiny_model):
    weights = dict(golden_file["state_dict"])
    del weights["roi_head.mask_head.1.conv_res.conv.bias"]
    with pytest.raises(ValueError, match=r"no value \(1\): roi_heads.mask_information_flow.0.bias"):
        convert(MMDET, weights, tiny_model.state_dict())


def test_a_wrong_shape_is_an_error(golden_file, tiny_model):
    weights = dict(golden_file["state_dict"])
    weights["roi_head.bbox_head.0.fc_cls.weight"] = torch.zeros(81, 64)
    with pytest.raises(ValueError, match=r"Wrong shapes.*fc_cls.weight is \(81, 64\).*\(6, 64\)"):
        convert(MMDET, weights, tiny_model.state_dict())


def test_values_that_are_no_weights_are_an_error_that_names_them():
    nan = {"backbone.a.weight": torch.full((2,), float("nan"))}
    with pytest.raises(ValueError, match="no weights .*backbone.a.weight is NaN at 2 of 2 places"):
        convert(DETECTRON2, nan)
