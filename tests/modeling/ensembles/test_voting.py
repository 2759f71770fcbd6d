import copy

import detectron2.data.transforms as T
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import pairwise_iou

from hybrid_cascade.modeling import VotingEnsemble
from hybrid_cascade.modeling.ensembles.voting import map_to_image
from hybrid_cascade.modeling.mnc.candidates import Candidates


def liven_up(model, seed):
    """Scores and masks that differ between boxes and between models, and are not 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for layer in (model.roi_heads.mask_head.predictor, model.roi_heads.predictor.cls_score):
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
        logits = []
        handle = layer.register_forward_hook(lambda _l, _i, out, found=logits: found.append(out))
        noise = torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8)
        detect(model.eval(), {"image": noise})
        handle.remove()
        layer.weight.data *= 6 / max(x.abs().max() for x in logits)
    return model


@pytest.fixture
def model(tiny_config):
    return liven_up(instantiate(tiny_config("mnc_toy")), 1)


@pytest.fixture
def image():
    return {"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)}


def detect(model, *inputs):
    with torch.no_grad():
        return [output["instances"] for output in model(list(inputs))]


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-4


def test_one_model_with_one_view_detects_what_the_model_detects(model, image):
    [alone], [found] = detect(model, image), detect(VotingEnsemble([model]), image)
    assert_same(found, alone)


@pytest.mark.parametrize("output", ["nms", "boxes"])
def test_other_outputs_join_too(model, image, output):
    model.roi_heads.test_output = output
    [alone], [found] = detect(model, image), detect(VotingEnsemble([model]), image)
    assert torch.equal(found.scores, alone.scores)
    other = liven_up(copy.deepcopy(model), 2)
    [both] = detect(VotingEnsemble([model, other]), image)
    assert both.scores.max() == max(found.scores.max(), detect(other, image)[0].scores.max())
    assert len(both) and not torch.equal(both.scores, alone.scores)


def test_a_model_twice_votes_as_once(model, image):
    [alone] = detect(VotingEnsemble([model]), image)
    [twice] = detect(VotingEnsemble([model, copy.deepcopy(model)]), image)
    assert_same(twice, alone)


def test_every_model_has_a_say(model, image):
    other = liven_up(copy.deepcopy(model), 2)
    joined = VotingEnsemble([model, other])
    [both], [one] = detect(joined, image), detect(model, image)
    assert not torch.equal(both.scores, one.scores)
    found = [joined._find_candidates(m, image["image"]) for m in joined.models]
    size = image["image"].shape[1:]
    best = model.roi_heads.merge(found[0] + found[1], size)
    torch.testing.assert_close(both.scores.max(), best.scores.max())


def test_models_may_differ_in_mask_resolution_stages_and_order_of_channels(
    model, image, tiny_config
):
    config = tiny_config("mnc_toy")
    config.roi_heads.mask_head.mask_side = 14
    config.roi_heads.num_stages = 3
    other = liven_up(instantiate(config), 2)
    joined = VotingEnsemble([model, other])
    [both], [one] = detect(joined, image), detect(model, image)
    assert len(both) and not torch.equal(both.scores, one.scores)
    in_bgr = copy.deepcopy(other)
    in_bgr.input_format = "BGR"
    in_bgr.pixel_mean, in_bgr.pixel_std = other.pixel_mean.flip(0), other.pixel_std.flip(0)
    weight = in_bgr.backbone.bottom_up.stem.conv1.weight
    weight.data = weight.data.flip(1)
    assert_same(detect(VotingEnsemble([model, in_bgr]), image)[0], both)
    model.roi_heads.test_output = "boxes"
    with pytest.raises(ValueError, match=r"same number of stages, not \[5, 3\]"):
        VotingEnsemble([model, other])


def test_boxes_of_each_class_and_boxes_for_all_join(model, image):
    model.roi_heads.test_output = "boxes"
    other = copy.deepcopy(model)
    layer = other.roi_heads.predictor.bbox_pred
    layer.weight.data, layer.bias.data = layer.weight.data[:4], layer.bias.data[:4]
    for models in ([model, other], [other, model]):
        [found] = detect(VotingEnsemble(models), image)
        assert len(found)


def test_views_are_scaled_back_to_the_output(model, image):
    model.roi_heads.test_output = "nms"  # votes are counted in the pixels of the image
    pixels = image["image"].permute(1, 2, 0).numpy()
    resize = T.ResizeShortestEdge(128).get_transform(pixels)
    resized = torch.tensor(resize.apply_image(pixels).copy()).permute(2, 0, 1)
    [expected] = detect(model, {"image": resized, "height": 64, "width": 96})
    [found] = detect(VotingEnsemble([model], short_sides=[128]), image)
    assert found.image_size == (64, 96)
    assert_same(found, expected)
    [two] = detect(VotingEnsemble([model], short_sides=[64, 128], max_size=150), image)
    assert two.pred_boxes.tensor[:, 2].max() <= 96 and two.pred_boxes.tensor[:, 3].max() <= 64
    assert not torch.equal(two.scores, found.scores)


def test_each_size_can_have_a_bound_of_its_own(model):
    resizes = VotingEnsemble([model], short_sides=[64, 128], max_size=(90, 150)).resizes
    assert [r.max_size for r in resizes] == [90, 150]
    with pytest.raises(ValueError, match=r"max_size=\[90, 150\].*short_sides=\[64\]"):
        VotingEnsemble([model], short_sides=[64], max_size=(90, 150))


def test_detections_have_the_size_that_is_asked_for(model, image):
    [found] = detect(VotingEnsemble([model]), {**image, "height": 32, "width": 60})
    assert found.image_size == (32, 60) and found.pred_masks.shape[1:] == (32, 60)
    assert found.pred_boxes.tensor[:, 2].max() <= 60 and found.pred_boxes.tensor[:, 3].max() <= 32


def test_the_first_model_sets_the_thresholds_and_nothing_has_gradients(model, image):
    other = copy.deepcopy(model)
    model.roi_heads.predictor.test_topk_per_image = 2
    [output] = VotingEnsemble([model, other])([image])
    assert 0 < len(output["instances"]) <= 2
    assert not output["instances"].scores.requires_grad


def test_mirrored_views_find_the_same_in_the_mirror(model, image):
    ensemble = VotingEnsemble([model], flip=True)
    [found] = detect(ensemble, image)
    [mirrored] = detect(ensemble, {"image": image["image"].flip(2)})
    torch.testing.assert_close(found.scores, mirrored.scores, rtol=1e-4, atol=1e-5)
    boxes = mirrored.pred_boxes
    x1, y1, x2, y2 = boxes.tensor.unbind(1)
    boxes.tensor = torch.stack([96 - x2, y1, 96 - x1, y2], dim=1)
    assert pairwise_iou(found.pred_boxes, boxes).diag()[:5].min() > 0.9


def test_candidates_move_with_their_view():
    candidates = Candidates(
        is_last=True,
        boxes=torch.tensor([[1.0, 2.0, 5.0, 8.0]]),
        masks=torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]),
        scores=torch.tensor([[0.5, 0.5]]),
        box_scores=torch.tensor([[0.4, 0.6]]),
        class_boxes=torch.tensor([[1.0, 2.0, 5.0, 8.0, 0.0, 0.0, 10.0, 20.0]]),
    )
    moved = map_to_image(candidates, view_size=(20, 10), image_size=(40, 30), flip=True)
    assert moved.boxes.tolist() == [[15.0, 4.0, 27.0, 16.0]]
    assert moved.masks.tolist() == [[[1.0, 0.0], [1.0, 0.0]]]
    assert moved.class_boxes.tolist() == [[15.0, 4.0, 27.0, 16.0, 0.0, 0.0, 30.0, 40.0]]
    assert moved.is_last and torch.equal(moved.scores, candidates.scores)
    assert torch.equal(moved.box_scores, candidates.box_scores)


def test_models_of_other_classes_are_refused(model):
    other = copy.deepcopy(model)
    other.roi_heads.num_classes = 7
    with pytest.raises(ValueError, match="same classes"):
        VotingEnsemble([model, other])
    other.roi_heads.num_classes = model.roi_heads.num_classes
    other.input_format = "L"
    with pytest.raises(ValueError, match="input formats"):
        VotingEnsemble([model, other])


def test_models_without_mnc_heads_are_refused(tiny_config):
    with pytest.raises(ValueError, match="MNCROIHeads"):
        VotingEnsemble([instantiate(tiny_config("mask_rcnn_toy"))])
