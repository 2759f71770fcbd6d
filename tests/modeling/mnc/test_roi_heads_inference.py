"""Detections of the ROI heads, as a whole; test_candidates.py has what they are made of."""

import sys
import threading

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec

from hybrid_cascade import add_hybrid_cascade_config
from hybrid_cascade.modeling import MNCROIHeads

from .small_heads import infer, make_features, make_heads, make_proposals, make_targets


def fields(instances):
    return {k: getattr(v, "tensor", v) for k, v in instances.get_fields().items()}


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for x, y in zip(map(fields, found), map(fields, expected), strict=True):
        assert x.keys() == y.keys()
        assert all(torch.equal(x[k], y[k]) for k in x)


@torch.no_grad()
def detect(heads, targets, **arguments):
    return heads.detect(make_features(), make_proposals(targets), **arguments)


def test_detect_returns_what_forward_returns(make_ground_truth):
    heads, targets = make_heads(), make_targets(make_ground_truth)
    assert_equal(detect(heads, targets), infer(heads, targets))


@pytest.mark.parametrize("own", [None, 3, 5])
def test_the_argument_of_a_call_goes_before_the_stages_of_the_constructor(make_ground_truth, own):
    targets = make_targets(make_ground_truth)
    three, five = (infer(make_heads(test_stages=n), targets) for n in (3, 5))
    assert not torch.equal(three[0].scores, five[0].scores)
    heads = make_heads(test_stages=own).eval()
    during = []  # the attribute stays as it is, also in the middle of a call
    heads.pooler.register_forward_hook(lambda *_: during.append(heads.test_stages))
    assert_equal(detect(heads, targets, test_stages=3), three)
    assert_equal(detect(heads, targets, test_stages=5), five)
    assert_equal(detect(heads, targets), three if own == 3 else five)
    assert set(during) == {own}


def test_yaml_has_the_switches_of_inference():
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    shapes = {"p2": ShapeSpec(channels=4, stride=4)}
    cfg.merge_from_list(["MODEL.ROI_HEADS.IN_FEATURES", ["p2"], "MODEL.ROI_BOX_HEAD.NUM_FC", 1])
    cfg.merge_from_list(["MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"])
    names = ("num_stages", "test_stages", "test_output", "nms_iou", "merge_iou", "mask_threshold")
    names = (*names, "binarize_before_voting")

    def build():
        heads = MNCROIHeads(cfg, shapes)
        return {name: getattr(heads, name) for name in names}

    assert build() == dict(zip(names, (5, None, "voting", 0.3, 0.5, 0.4, False), strict=True))
    other = dict(zip(names, (3, 7, "nms", 0.4, 0.6, 0.7, True), strict=True))
    for name, value in other.items():
        cfg.MODEL.ROI_MNC_HEAD[name.upper()] = value
    assert build() == other
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.6
    with pytest.raises(ValueError, match="NMS_THRESH_TEST"):
        build()


def test_inference_runs_more_stages_than_are_trained(make_ground_truth):
    targets = make_targets(make_ground_truth)
    trained = {n: make_heads(num_stages=n).eval() for n in (3, 5, 7)}  # with equal weights
    for stages, heads in trained.items():
        expected = detect(heads, targets)
        for other in trained.values():
            assert_equal(detect(other, targets, test_stages=stages), expected)
        heads = make_heads(num_stages=3, test_stages=stages).eval()
        assert_equal(detect(heads, targets), expected)
        assert list(heads.test_stage_choices) == [*range(3, stages + 1, 2)]
    assert list(make_heads(test_stages=3).test_stage_choices) == [3, 5]


@pytest.mark.parametrize("test_stages", [0, 1, 2, 4, 5.0])
def test_stages_that_the_heads_do_not_have_are_refused(make_ground_truth, test_stages):
    heads, targets = make_heads().eval(), make_targets(make_ground_truth)
    with pytest.raises(ValueError, match=f"test_stages={test_stages} "):
        detect(heads, targets, test_stages=test_stages)


@pytest.fixture
def switch_threads_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(*functions):
    """What the functions return, called at the same time, each in a thread of its own."""
    results = [None] * len(functions)
    start = threading.Barrier(len(functions))

    def call(index):
        start.wait()
        results[index] = functions[index]()

    threads = [threading.Thread(target=call, args=[i]) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_one_model_infers_in_two_threads_as_in_one(tiny_config, inputs, switch_threads_often):
    model = instantiate(tiny_config("mnc_toy")).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("cls_score.weight", "bbox_pred.weight", "predictor.weight")):
            torch.nn.init.normal_(weight, std=0.05)

    @torch.no_grad()
    def infer_once(x):
        return [model([{k: v for k, v in x.items() if k != "instances"}])[0]["instances"]]

    expected = [infer_once(x) for x in inputs]
    found = in_threads(*(lambda x=x: infer_once(x) for x in inputs))
    for x, y in zip(found, expected, strict=True):
        assert_equal(x, y)


def test_two_threads_run_as_many_stages_as_each_asks_for(make_ground_truth, switch_threads_often):
    heads, targets = make_heads().eval(), make_targets(make_ground_truth)
    expected = [detect(heads, targets, test_stages=n) for n in (3, 5)]

    def repeat(test_stages):
        return [detect(heads, targets, test_stages=test_stages) for _ in range(5)]

    found = in_threads(lambda: repeat(3), lambda: repeat(5))
    for repeated, right in zip(found, expected, strict=True):
        for instances in repeated:
            assert_equal(instances, right)
