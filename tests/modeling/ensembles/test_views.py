import copy

import detectron2.data.transforms as T
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes

from hybrid_cascade.modeling import RCNNWithTestTimeAugmentation

from .same_detections import assert_same_boxes

WIDTH = 96


@pytest.fixture
def image():
    return {"image": torch.randint(0, 256, (3, 64, WIDTH), dtype=torch.uint8)}


def detect(model, x):
    with torch.no_grad():
        return model([x])[0]["instances"]


def resize(image, side):
    pixels = image["image"].permute(1, 2, 0).numpy()
    pixels = T.ResizeShortestEdge(side).get_transform(pixels).apply_image(pixels)
    return {"image": torch.as_tensor(pixels.copy()).permute(2, 0, 1), "height": 64, "width": WIDTH}


def assert_same(found, expected):
    assert_same_boxes(found, expected)
    if expected.has("pred_masks"):
        assert expected.pred_masks.any()
        assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-3


def mirror(boxes):
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([WIDTH - x2, y1, WIDTH - x1, y2], dim=1)


@pytest.mark.parametrize(
    "name",
    ["htc_toy", "htc_without_semantic_toy", "mask_rcnn_toy", "CascadeROIHeads", "Res5ROIHeads"],
)
@pytest.mark.parametrize("masks", [True, False])
def test_one_view_detects_what_the_model_detects(name, masks, make_lively_rcnn, image):
    if name == "htc_without_semantic_toy" and not masks:
        pytest.skip("the same as htc_toy")
    model = make_lively_rcnn(name, masks=masks)
    if name.endswith("ROIHeads"):
        assert type(model.roi_heads).__name__ == name
    alone = detect(model, image)
    assert alone.has("pred_masks") == masks
    assert_same(detect(RCNNWithTestTimeAugmentation(model), image), alone)


@pytest.mark.parametrize("soft_nms", ["linear", "gaussian"])
def test_soft_nms_decays_the_scores_of_one_view_once(soft_nms, make_lively_rcnn, image):
    model = make_lively_rcnn(masks=False, soft_nms=soft_nms)
    predictor = model.roi_heads.final_predictor
    predictor.test_nms_thresh = 0.1
    alone = detect(model, image)
    assert_same(detect(RCNNWithTestTimeAugmentation(model), image), alone)
    model.roi_heads.soft_nms, predictor.test_nms_thresh = "none", 2
    assert detect(model, image).scores[-1] > alone.scores[-1]


def test_views_meet_in_soft_nms(make_constant_rcnn, image):
    model = make_constant_rcnn("htc_toy", [[8.0, 8, 32, 40]], score=0.5)
    views = RCNNWithTestTimeAugmentation(model, flip=True)
    assert len(detect(views, image)) == 2  # the box and its mirror image
    model.proposal_generator.boxes = torch.tensor([[20.0, 8, WIDTH - 20, 40]])  # symmetric
    assert len(detect(views, image)) == 1
    model.roi_heads.soft_nms = "gaussian"
    scores = detect(views, image).scores
    torch.testing.assert_close(scores, 0.5 * torch.tensor([0.0, -2.0]).exp())


def test_a_resized_view_comes_back_to_the_output(make_lively_rcnn, image):
    model = make_lively_rcnn()
    found = detect(RCNNWithTestTimeAugmentation(model, short_sides=[128]), image)
    assert found.image_size == (64, WIDTH)
    assert_same(found, detect(model, resize(image, 128)))


def test_the_longer_side_of_views_is_bounded(make_lively_rcnn, image):
    model = make_lively_rcnn(masks=False)
    found = detect(RCNNWithTestTimeAugmentation(model, [128], max_size=120), image)
    assert_same(found, detect(model, resize(image, 80)))


def test_each_view_can_have_a_bound_of_its_own(make_lively_rcnn, image):
    model = make_lively_rcnn(masks=False)
    views = RCNNWithTestTimeAugmentation(model, [128, 64], max_size=[120, 72], flip=True)
    found = views.tta_mapper({**image, "height": 64, "width": WIDTH})
    sizes = [tuple(view["image"].shape[1:]) for view in found]
    assert sizes == [(80, 120)] * 2 + [(48, 72)] * 2
    with pytest.raises(ValueError, match=r"max_size=\[120\].*short_sides=\[128, 64\]"):
        RCNNWithTestTimeAugmentation(model, [128, 64], max_size=[120])


@pytest.mark.parametrize("name", ["htc_toy", "mask_rcnn_toy", "CascadeROIHeads", "Res5ROIHeads"])
def test_mirrored_views_find_the_same_in_the_mirror(name, make_lively_rcnn, image):
    model = RCNNWithTestTimeAugmentation(make_lively_rcnn(name), flip=True)
    found = detect(model, image)
    mirrored = detect(model, {"image": image["image"].flip(2)})
    mirrored.pred_boxes = Boxes(mirror(mirrored.pred_boxes.tensor))
    mirrored.pred_masks = mirrored.pred_masks.flip(2)
    torch.testing.assert_close(found.scores, mirrored.scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.pred_boxes.tensor, mirrored.pred_boxes.tensor, rtol=1e-3, atol=1e-2
    )
    assert found.pred_masks.any()
    # Pasting on the CPU isn't quite symmetric at the borders of boxes.
    assert (found.pred_masks != mirrored.pred_masks).float().mean() < 0.01


def test_masks_are_averaged_over_stages_and_views(make_lively_rcnn, image):
    model = make_lively_rcnn()
    found = detect(RCNNWithTestTimeAugmentation(model, flip=True), image)
    views = []
    for flip in (False, True):
        given = copy.deepcopy(found)
        del given._fields["pred_masks"]
        if flip:
            given.pred_boxes = Boxes(mirror(given.pred_boxes.tensor))
        x = {"image": image["image"].flip(2) if flip else image["image"]}
        with torch.no_grad():
            [result] = model.inference([x], [given], do_postprocess=False)
        views.append(result.pred_masks.flip(3) if flip else result.pred_masks)
    size = (64, WIDTH)
    expected, one = (
        paste_masks_in_image(masks[:, 0], found.pred_boxes, size, 0.5)
        for masks in (sum(views) / 2, views[0])
    )
    assert (found.pred_masks != expected).float().mean() < 1e-3
    assert (found.pred_masks != one).float().mean() > 0.01


def test_images_without_detections_are_ordinary(make_constant_rcnn, image):
    for name in ("htc_toy", "mask_rcnn_toy", "CascadeROIHeads", "Res5ROIHeads"):
        model = make_constant_rcnn(name, [], score=0.5)
        for soft_nms in ("none", "gaussian"):
            model.roi_heads.soft_nms = soft_nms
            views = RCNNWithTestTimeAugmentation(model, short_sides=[64, 80], flip=True)
            found = detect(views, image)
            assert len(found) == 0 and found.pred_masks.shape == (0, 64, WIDTH)


def test_models_that_cannot_be_augmented_are_refused(tiny_config):
    with pytest.raises(ValueError, match="a Linear"):
        RCNNWithTestTimeAugmentation(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="not MNCROIHeads"):
        RCNNWithTestTimeAugmentation(instantiate(tiny_config("mnc_toy")))
    model = instantiate(tiny_config("mask_rcnn_toy"))
    model.roi_heads.keypoint_on = True
    with pytest.raises(ValueError, match="keypoints"):
        RCNNWithTestTimeAugmentation(model)
    model.roi_heads.keypoint_on = False
    model.proposal_generator = None
    with pytest.raises(ValueError, match="RPN"):
        RCNNWithTestTimeAugmentation(model)
