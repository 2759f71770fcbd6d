import threading
from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances

from hybrid_cascade.modeling import RCNNEnsemble, RCNNWithTestTimeAugmentation
from hybrid_cascade.modeling.inference_steps import (
    detect_boxes,
    extract_features,
    predict_masks,
    propose,
    resize_semantic_logits,
)
from hybrid_cascade.modeling.semantic.context_head import INTERPOLATION_OF_SAMPLING

HEADS = ["htc_toy", "mask_rcnn_toy", "CascadeROIHeads", "Res5ROIHeads"]


@pytest.fixture
def images():
    return [{"image": torch.randint(0, 256, (3, *s), dtype=torch.uint8)} for s in [(64, 96)] * 2]


def infer(model, images, **kwargs):
    with torch.no_grad():
        return model.inference(images, do_postprocess=False, **kwargs)


def assert_equal(found, expected, without=()):
    assert len(found) == len(expected) > 0
    assert found.get_fields().keys() == expected.get_fields().keys() - set(without)
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    for name in found.get_fields().keys() - {"pred_boxes"}:
        assert torch.equal(found.get(name), expected.get(name))


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_boxes_are_those_of_inference_without_masks(name, make_lively_rcnn, images):
    model = make_lively_rcnn(name)
    masks = []
    for head in [m for n, m in model.roi_heads.named_modules() if n.endswith("predictor")]:
        if isinstance(head, torch.nn.Conv2d):
            head.register_forward_hook(lambda *args: masks.append(args))
    found = detect_boxes(model, images)
    assert not masks and model.roi_heads.mask_on
    for of_image, expected in zip(found, infer(model, images), strict=True):
        assert_equal(of_image, expected, without=["pred_masks"])


@torch.no_grad()
def test_without_soft_suppression_the_candidates_come(make_lively_rcnn, images):
    model = make_lively_rcnn(soft_nms="linear")
    model.roi_heads.final_predictor.test_nms_thresh = 0.1
    for candidates, found in zip(
        detect_boxes(model, images, soft_suppression=False),
        detect_boxes(model, images),
        strict=True,
    ):
        assert len(candidates) > len(found)
        assert_equal(model.roi_heads.suppress_softly(candidates), found)


def test_boxes_of_a_model_in_training_mode_are_refused(make_lively_rcnn, images):
    with pytest.raises(ValueError, match="in training mode"):
        detect_boxes(make_lively_rcnn("mask_rcnn_toy").train(), images)


def test_a_model_without_an_rpn_takes_the_proposals_of_its_inputs(make_lively_rcnn, images):
    model = make_lively_rcnn("mask_rcnn_toy")
    model.proposal_generator = None
    for x in images:
        x["proposals"] = Instances((64, 96), proposal_boxes=Boxes(torch.rand(3, 4)))
    proposals, losses = propose(model, None, {}, images)
    assert losses == {}
    for found, x in zip(proposals, images, strict=True):
        assert torch.equal(found.proposal_boxes.tensor, x["proposals"].proposal_boxes.tensor)


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_masks_of_given_boxes_leave_the_instances_as_they_are(name, make_lively_rcnn, images):
    model = make_lively_rcnn(name)
    expected = infer(model, images)
    given = detect_boxes(model, images)
    features, _ = extract_features(model, model.preprocess_image(images))
    masks = predict_masks(model.roi_heads, features, given)
    for of_image, instances, with_masks in zip(masks, given, expected, strict=True):
        torch.testing.assert_close(of_image, with_masks.pred_masks)
        assert_equal(instances, with_masks, without=["pred_masks"])


def test_features_are_those_of_the_semantic_branch_if_there_is_one(make_lively_rcnn, images):
    plain = make_lively_rcnn("mask_rcnn_toy")
    batch = plain.preprocess_image(images)
    features, logits = extract_features(plain, batch)
    assert features.keys() == plain.backbone.output_shape().keys() and logits is None
    htc = make_lively_rcnn("htc_toy")
    features, logits = extract_features(htc, batch)
    expected, expected_logits, _ = htc.semantic_branch(htc.backbone(batch.tensor), None)
    assert features.keys() == expected.keys() >= {"semantic"}
    assert all(torch.equal(features[name], expected[name]) for name in expected)
    assert torch.equal(logits, expected_logits)


def test_semantic_logits_are_resized_without_the_padding():
    # Label 0 in the first image, which is 4 x 6 of 8 x 8 pixels; its padding and the second: 1.
    batch = ImageList(torch.zeros(2, 3, 8, 8), [(4, 6), (8, 8)])
    logits = torch.zeros(2, 2, 8, 8)
    logits[0, 0, :4, :6] = 1
    logits[0, 1], logits[1, 1] = 1 - logits[0, 0], 1
    branch = SimpleNamespace(label_sampling="center")
    first, second = resize_semantic_logits(branch, logits, batch, [(8, 12), (5, 5)])
    assert first.shape == (2, 8, 12) and (first.argmax(dim=0) == 0).all()
    assert second.shape == (2, 5, 5) and (second.argmax(dim=0) == 1).all()


@pytest.mark.parametrize("label_sampling", INTERPOLATION_OF_SAMPLING)
def test_edges_are_where_they_are_in_the_labels_that_the_branch_learned(label_sampling):
    """Of logits that say the label of each cell, whose stride is 8."""
    height, width, errors = 64, 96, []
    batch = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    branch = SimpleNamespace(label_sampling=label_sampling)
    for edge in range(8, 56):
        labels = torch.zeros(1, 1, height, width)
        labels[..., edge:, edge:] = 1
        mode = INTERPOLATION_OF_SAMPLING[label_sampling]
        cells = torch.nn.functional.interpolate(labels, size=(height // 8, width // 8), mode=mode)
        logits = torch.cat([1 - cells, cells], dim=1)
        [resized] = resize_semantic_logits(branch, logits, batch, [(height, width)])
        assert resized.shape == (2, height, width)
        found = resized[1] > resized[0]
        errors.append([found[-1].int().argmax() - edge, found[:, -1].int().argmax() - edge])
    assert torch.tensor(errors).float().mean(dim=0).abs().max() <= 1


@pytest.mark.parametrize("label_sampling", INTERPOLATION_OF_SAMPLING)
@pytest.mark.parametrize("cells", [(1, 1), (3, 5)])
def test_logits_of_maps_of_any_size_are_resized(label_sampling, cells):
    batch = ImageList(torch.zeros(1, 3, 20, 33), [(20, 33)])
    branch = SimpleNamespace(label_sampling=label_sampling)
    [resized] = resize_semantic_logits(branch, torch.rand(1, 4, *cells), batch, [(20, 33)])
    assert resized.shape == (4, 20, 33) and resized.isfinite().all()


def views_of(model):
    return RCNNWithTestTimeAugmentation(model, flip=True)


@pytest.mark.parametrize(
    "make_model",
    [
        lambda make: make("htc_toy"),
        lambda make: make("mask_rcnn_sfpn_toy"),
        lambda make: views_of(make("htc_toy", soft_nms="gaussian")),
        lambda make: views_of(make("mask_rcnn_toy")),
        lambda make: RCNNEnsemble([make("mask_rcnn_toy", seed=s) for s in (1, 2)]).eval(),
        lambda make: views_of(RCNNEnsemble([make(soft_nms="linear") for _ in range(2)]).eval()),
    ],
    ids=["htc", "sfpn", "views, soft-NMS", "views", "ensemble", "views of ensemble, soft-NMS"],
)
def test_two_threads_infer_what_one_after_the_other_infers(make_model, make_lively_rcnn, images):
    model = make_model(make_lively_rcnn)
    with torch.no_grad():
        expected = [model([x])[0]["instances"] for x in images]
    found, start = [[], []], threading.Barrier(len(images))

    @torch.no_grad()
    def work(index):
        start.wait()
        for _ in range(2):
            found[index] += [model([images[index]])[0]["instances"]]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for of_image, one in zip(found, expected, strict=True):
        assert len(of_image) == 2
        for instances in of_image:
            assert_equal(instances, one)
