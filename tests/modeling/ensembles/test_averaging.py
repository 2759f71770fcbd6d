import copy

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.roi_heads import CascadeROIHeads

from hybrid_cascade.modeling import RCNNEnsemble, RCNNWithTestTimeAugmentation

from .same_detections import assert_same_boxes

IMAGE = (64, 96)
A, B = [10.0, 10.0, 30.0, 40.0], [50.0, 20.0, 80.0, 60.0]


@pytest.fixture
def image():
    return {"image": torch.randint(0, 256, (3, *IMAGE), dtype=torch.uint8)}


def detect(model, *inputs, **kwargs):
    with torch.no_grad():
        outputs = model.inference(list(inputs), **kwargs)
    return [x["instances"] if isinstance(x, dict) else x for x in outputs]


def assert_same(found, expected):
    assert_same_boxes(found, expected)
    if expected.has("pred_masks"):
        torch.testing.assert_close(found.pred_masks, expected.pred_masks)


@pytest.mark.parametrize("name", ["htc_toy", "htc_without_semantic_toy", "mask_rcnn_toy"])
def test_a_model_with_itself_detects_what_it_detects_alone(name, make_lively_rcnn, inputs):
    model = make_lively_rcnn(name)
    ensemble = RCNNEnsemble([model, copy.deepcopy(model)]).eval()
    for raw in (True, False):
        alone = detect(model, *inputs, do_postprocess=not raw)
        together = detect(ensemble, *inputs, do_postprocess=not raw)
        for found, expected in zip(together, alone, strict=True):
            assert_same(found, expected)


@pytest.mark.parametrize("name", ["htc_toy", "mask_rcnn_toy"])
def test_without_masks_boxes_are_averaged(name, make_lively_rcnn, image):
    model = make_lively_rcnn(name, masks=False)
    [found], [alone] = detect(RCNNEnsemble([model] * 2).eval(), image), detect(model, image)
    assert not found.has("pred_masks")
    assert_same(found, alone)


@pytest.mark.parametrize(
    "name, shift",
    # A delta of 1 moves by a tenth of the width at the first stage, then a 20th and a 30th.
    [("mask_rcnn_toy", 0.1), ("htc_toy", 0.1 + 0.05 + 1 / 30)],
)
def test_scores_boxes_and_masks_are_averaged_on_the_proposals_of_all(
    name, shift, make_constant_rcnn, image
):
    still = make_constant_rcnn(name, [A], score=0.8, mask_probability=0.9)
    moving = make_constant_rcnn(name, [B], score=0.4, shift=1.0, mask_probability=0.3)
    [found] = detect(RCNNEnsemble([still, moving]).eval(), image, do_postprocess=False)
    assert found.pred_classes.tolist() == [0, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.6]))
    torch.testing.assert_close(found.pred_masks, torch.full((2, 1, 28, 28), 0.6))
    boxes = found.pred_boxes.tensor[found.pred_boxes.tensor[:, 0].argsort()]
    half_a_move = shift / 2 * torch.tensor([[20.0, 0, 20, 0], [30, 0, 30, 0]])
    torch.testing.assert_close(boxes, torch.tensor([A, B]) + half_a_move)


@pytest.mark.parametrize(
    "first, second", [("htc_toy", "mask_rcnn_toy"), ("mask_rcnn_toy", "htc_toy")]
)
def test_boxes_for_all_classes_and_boxes_of_each_class_are_averaged(
    first, second, make_constant_rcnn, image
):
    shifts = {"mask_rcnn_toy": 0.1, "htc_toy": 0.1 + 0.05 + 1 / 30}
    still = make_constant_rcnn(first, [A], score=0.8, mask_probability=0.9)
    moving = make_constant_rcnn(second, [B], score=0.4, shift=1.0, mask_probability=0.3)
    [found] = detect(RCNNEnsemble([still, moving]).eval(), image, do_postprocess=False)
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.6]))
    boxes = found.pred_boxes.tensor[found.pred_boxes.tensor[:, 0].argsort()]
    half_a_move = shifts[second] / 2 * torch.tensor([[20.0, 0, 20, 0], [30, 0, 30, 0]])
    torch.testing.assert_close(boxes, torch.tensor([A, B]) + half_a_move)


def test_masks_get_the_resolution_of_the_first_models(make_constant_rcnn, image):
    large = make_constant_rcnn("htc_toy", [A], score=0.8, mask_probability=0.9)
    small = make_constant_rcnn("mask_rcnn_toy", [A], score=0.8, mask_probability=0.3)
    for pooler in (small.roi_heads.mask_pooler, *small.roi_heads.mask_pooler.level_poolers):
        pooler.output_size = (7, 7)
    for models, side in (([large, small], 28), ([small, large], 14)):
        [found] = detect(RCNNEnsemble(models).eval(), image, do_postprocess=False)
        torch.testing.assert_close(found.pred_masks, torch.full((1, 1, side, side), 0.6))
        models[0].proposal_generator.boxes = models[1].proposal_generator.boxes = torch.zeros(0, 4)
        [found] = detect(RCNNEnsemble(models).eval(), image, do_postprocess=False)
        assert found.pred_masks.shape == (0, 1, side, side)
        models[0].proposal_generator.boxes = torch.tensor([A])


def test_each_model_normalizes_and_orders_the_channels_itself(make_lively_rcnn, image):
    model = make_lively_rcnn()
    same = copy.deepcopy(model)
    # The same function of the pixels: channels and their weights in the other order, pixels half
    # as large and weights twice.
    same.input_format = "BGR"
    same.pixel_mean, same.pixel_std = same.pixel_mean.flip(0), 2 * same.pixel_std.flip(0)
    weight = same.backbone.bottom_up.stem.conv1.weight
    weight.data = 2 * weight.data.flip(1)
    [alone] = detect(model, image, do_postprocess=False)
    [found] = detect(RCNNEnsemble([model, same]).eval(), image, do_postprocess=False)
    assert_same(found, alone)
    bgr = {"image": image["image"].flip(0)}
    [found] = detect(RCNNEnsemble([same, model]).eval(), bgr, do_postprocess=False)
    assert_same(found, alone)
    boxes = RCNNEnsemble([same, model]).eval().detect_boxes([bgr])[0]
    torch.testing.assert_close(boxes.scores, alone.scores)


def test_models_may_pad_images_differently(make_lively_rcnn, image, monkeypatch):
    model = make_lively_rcnn()
    padded = copy.deepcopy(model)
    monkeypatch.setattr(
        type(padded.backbone), "padding_constraints", property(lambda x: x.padding), raising=False
    )
    model.backbone.padding = {"size_divisibility": 32}
    padded.backbone.padding = {"size_divisibility": 128}
    sizes = []
    for m in (model, padded):
        m.backbone.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[-2:])))
    detect(RCNNEnsemble([model, padded]).eval(), image)
    assert sizes[0] == (64, 96) and sizes[1] == (128, 128)


def test_masks_of_given_boxes_are_averaged(make_lively_rcnn, image):
    models = [make_lively_rcnn(seed=1), make_lively_rcnn(seed=2)]
    [boxes] = detect(models[0], image, do_postprocess=False)
    del boxes._fields["pred_masks"]

    def masks(model):
        given = copy.deepcopy(boxes)
        return detect(model, image, detected_instances=[given], do_postprocess=False)[0].pred_masks

    expected = (masks(models[0]) + masks(models[1])) / 2
    torch.testing.assert_close(masks(RCNNEnsemble(models).eval()), expected)
    assert not torch.allclose(masks(models[0]), masks(models[1]), atol=0.1)


def test_the_suppression_is_the_first_models(make_constant_rcnn, image):
    near = [A[0], A[1], A[2], A[3] - 5]  # IoU 5/6
    models = [make_constant_rcnn("htc_toy", [A, near], score=0.5) for _ in range(2)]
    models[0].roi_heads.soft_nms = "gaussian"
    [found] = detect(RCNNEnsemble(models).eval(), image)
    assert len(found) == 4  # each box of each model, the copies with their scores decayed
    [found] = detect(RCNNEnsemble(models[::-1]).eval(), image)
    assert len(found) == 1


def test_the_views_of_an_ensemble_are_augmented(make_lively_rcnn, image):
    model = make_lively_rcnn()
    ensemble = RCNNEnsemble([model, copy.deepcopy(model)]).eval()
    options = {"short_sides": [64, 80], "max_size": 200, "flip": True}
    with torch.no_grad():
        [found], [expected] = (
            RCNNWithTestTimeAugmentation(m, **options)([image]) for m in (ensemble, model)
        )
    assert_same(found["instances"], expected["instances"])


def test_no_proposals_give_no_detections(make_constant_rcnn, image):
    for name in ("mask_rcnn_toy", "htc_toy"):
        models = [make_constant_rcnn(name, [], score=0.5) for _ in range(2)]
        [found] = detect(RCNNEnsemble(models).eval(), image)
        assert len(found) == 0 and found.pred_masks.shape == (0, *IMAGE)


def test_models_that_cannot_be_averaged_are_refused(tiny_config):
    with pytest.raises(ValueError, match="MNCROIHeads"):
        RCNNEnsemble([instantiate(tiny_config("mnc_toy"))])
    with pytest.raises(ValueError, match="a Linear"):
        RCNNEnsemble([torch.nn.Linear(1, 1)])
    model = instantiate(tiny_config("mask_rcnn_toy"))
    model.roi_heads.keypoint_on = True
    with pytest.raises(ValueError, match="Keypoints"):
        RCNNEnsemble([model])
    model.roi_heads.keypoint_on = False
    model.proposal_generator = None
    with pytest.raises(ValueError, match="RPN"):
        RCNNEnsemble([model])
    model = instantiate(tiny_config("cascade_mask_rcnn_toy"))
    model.roi_heads.__class__ = CascadeROIHeads
    with pytest.raises(ValueError, match="with CascadeROIHeads"):
        RCNNEnsemble([model])


def test_models_that_do_not_fit_together_are_refused(make_constant_rcnn, tiny_config):
    first, second = (make_constant_rcnn("mask_rcnn_toy", [A], score=0.5) for _ in range(2))
    second.roi_heads.num_classes = 7
    with pytest.raises(ValueError, match=r"the same classes, not of \[5, 7\]"):
        RCNNEnsemble([first, second])
    second.roi_heads.num_classes = 5
    for other in ("L", None):
        second.input_format = other
        with pytest.raises(ValueError, match="input formats.*RGB.*INPUT.FORMAT"):
            RCNNEnsemble([first, second])
    second.input_format = "BGR"
    second.roi_heads.mask_on = False
    with pytest.raises(ValueError, match="The first model predicts masks"):
        RCNNEnsemble([first, second])
    RCNNEnsemble([second, first])  # boxes only
