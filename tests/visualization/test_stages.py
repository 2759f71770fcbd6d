import copy
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch import nn

from hybrid_cascade.modeling import RCNNEnsemble
from hybrid_cascade.visualization.stages import detect_after_stages, find_stages

CONFIGS = Path(__file__).parents[2] / "configs" / "quick_start"
LEVELS = {f"p{k}": ShapeSpec(channels=64, stride=2**k) for k in (2, 3, 4, 5)}


@pytest.fixture
def batched_input():
    image = torch.randint(0, 256, (3, 61, 90), dtype=torch.uint8)
    return {"image": image, "height": 50, "width": 75}


@pytest.fixture
def make_model(tiny_config):
    """Models in eval mode whose detections pass the score threshold."""

    def make(name):
        if name == "panoptic_fpn":
            return make_panoptic_fpn()
        if name == "ssd_toy":
            return instantiate(LazyConfig.load(str(CONFIGS / "ssd_toy.py")).model).eval()
        model = instantiate(tiny_config(name)).eval()
        heads = model.roi_heads
        predictors = heads.predictor if hasattr(heads, "predictor") else heads.box_predictor
        for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
            predictor.test_score_thresh = 0.0
            predictor.test_topk_per_image = 5
        return model

    def make_panoptic_fpn():
        htc = make("htc_without_semantic_toy")
        return PanopticFPN(
            sem_seg_head=SemSegFPNHead(
                LEVELS, num_classes=4, conv_dims=32, common_stride=4, norm="GN"
            ),
            backbone=htc.backbone,
            proposal_generator=htc.proposal_generator,
            roi_heads=htc.roi_heads,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
        ).eval()

    return make


def run(model, x):
    with torch.no_grad():
        [output] = model([x])
    return output


def assert_equal(found, expected):
    assert found.image_size == expected.image_size and len(found) == len(expected) > 0
    assert found.get_fields().keys() == expected.get_fields().keys()
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    for name in found.get_fields().keys() - {"pred_boxes"}:
        assert torch.equal(found.get(name), expected.get(name))


@pytest.mark.parametrize(
    "name, stages",
    [
        ("htc_toy", [1, 2, 3]),
        ("htc_sfpn_toy", [1, 2, 3]),
        ("mnc_toy", [3, 5]),
        ("panoptic_fpn", [1, 2, 3]),
    ],
)
def test_each_stage_finds_what_a_model_that_ends_with_it_finds(
    name, stages, make_model, batched_input
):
    model = make_model(name)
    assert find_stages(model) == stages
    found, sem_seg = detect_after_stages(model, batched_input, stages)
    ends_earlier = copy.deepcopy(model)
    if hasattr(model, "semantic_branch"):
        ends_earlier.output_sem_seg = True
    for stage, of_stage in zip(stages, found, strict=True):
        ends_earlier.roi_heads.test_stages = stage
        output = run(ends_earlier, batched_input)
        assert_equal(of_stage, output["instances"])
    if name == "mnc_toy":
        assert sem_seg is None
    else:
        assert torch.equal(sem_seg, output["sem_seg"].argmax(dim=0))
        assert sem_seg.shape == (50, 75)


def test_stages_beyond_those_of_training_are_shown_if_inference_runs_them(make_model):
    model = make_model("mnc_toy")
    model.roi_heads.test_stages = 7
    assert find_stages(model) == [3, 5, 7]
    model.roi_heads.test_stages = 3
    assert find_stages(model) == [3, 5]


@pytest.mark.parametrize("name", ["mask_rcnn_sfpn_toy", "mask_rcnn_toy", "ssd_toy"])
def test_models_without_stages_are_run_once(name, make_model, batched_input):
    model = make_model(name)
    assert find_stages(model) == [None]
    [found], sem_seg = detect_after_stages(model, batched_input, [None])
    has_branch = hasattr(model, "semantic_branch")
    if has_branch:
        model.output_sem_seg = True
    expected = run(model, batched_input)
    assert_equal(found, expected["instances"])
    assert (sem_seg is not None) == has_branch
    if has_branch:
        assert torch.equal(sem_seg, expected["sem_seg"].argmax(dim=0))


def test_an_ensemble_is_not_split_into_the_stages_of_its_first_model(make_model, batched_input):
    ensemble = RCNNEnsemble([make_model("htc_toy"), make_model("htc_toy")]).eval()
    assert find_stages(ensemble) == [None]
    [found], _ = detect_after_stages(ensemble, batched_input, [None])
    assert_equal(found, run(ensemble, batched_input)["instances"])


def test_backbone_and_rpn_run_once_for_all_stages(make_model, batched_input):
    model, calls = make_model("htc_toy"), []
    for name in ("backbone", "proposal_generator", "semantic_branch"):
        module = getattr(model, name)
        module.register_forward_hook(lambda *args, name=name: calls.append(name))
    detect_after_stages(model, batched_input, [1, 2, 3])
    assert sorted(calls) == ["backbone", "proposal_generator", "semantic_branch"]


def test_a_model_in_training_mode_is_refused(make_model, batched_input):
    with pytest.raises(ValueError, match="SemanticRCNN is in training mode"):
        detect_after_stages(make_model("htc_toy").train(), batched_input, [3])
