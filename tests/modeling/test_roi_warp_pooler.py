import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from hybrid_cascade.layers import roi_warp
from hybrid_cascade.modeling import ROIWarpPooler
from hybrid_cascade.modeling.roi_warp_pooler import assign_boxes_to_levels

from ..layers.roi_warp_cases import random_boxes, random_features

SCALES = [1 / 4, 1 / 8, 1 / 16]


def pyramid(images=2, side=512, dtype=torch.float32):
    return [random_features(images, 3, int(side * s), int(side * s), dtype=dtype) for s in SCALES]


def boxes_of_many_sizes(dtype=torch.float32):
    boxes = random_boxes(8, 1, 512, 512, dtype=dtype)[:, 1:]
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    boxes = torch.cat([center - size / 8, center + size / 8], dim=1), boxes
    return [Boxes(b) for b in boxes]


def test_boxes_are_warped_from_the_level_that_roi_pooler_takes(implementation):
    features, boxes = pyramid(), boxes_of_many_sizes()
    pooler = ROIWarpPooler(6, SCALES, max_pool=2, aligned=True)
    levels = assign_boxes_to_levels(boxes, 2, 4, 224, 4)
    assert set(levels.tolist()) == {0, 1, 2}
    output = pooler(features, boxes)
    rows = torch.cat(
        [torch.cat([b.tensor.new_full((len(b), 1), i), b.tensor], 1) for i, b in enumerate(boxes)]
    )
    for row, level, result in zip(rows, levels.tolist(), output, strict=True):
        expected = roi_warp(features[level], row[None], 6, SCALES[level], 2, True)[0]
        torch.testing.assert_close(result, expected)


def test_levels_are_those_of_roi_pooler(implementation):
    # Maps of which each has its own value, so that the output names the level.
    features = [torch.full((2, 1, 256 >> i, 256 >> i), i + 1.0) for i in range(3)]
    boxes = [Boxes(b.tensor.clamp(8, 500)) for b in boxes_of_many_sizes()]
    theirs = ROIPooler(4, SCALES, 1, "ROIAlignV2", canonical_box_size=112, canonical_level=4)
    ours = ROIWarpPooler(4, SCALES, aligned=True, canonical_box_size=112, canonical_level=4)
    output = ours(features, boxes)
    assert set(output[:, 0, 1, 1].tolist()) == {1.0, 2.0, 3.0}
    torch.testing.assert_close(output, theirs(features, boxes))


def test_gradients_reach_features_and_boxes(implementation):
    features = [f.requires_grad_() for f in pyramid()]
    boxes = boxes_of_many_sizes()
    for image_boxes in boxes:
        image_boxes.tensor.requires_grad_()
    ROIWarpPooler(4, SCALES)(features, boxes).square().sum().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)
    assert all((b.tensor.grad.abs().sum(dim=1) > 0).all() for b in boxes)


def test_one_level_and_an_output_that_is_not_square(implementation):
    features, boxes = pyramid()[2:], boxes_of_many_sizes()
    output = ROIWarpPooler((4, 6), [1 / 16])(features, boxes)
    expected = roi_warp(features[0], [b.tensor for b in boxes], (4, 6), 1 / 16)
    assert torch.equal(output, expected)
    assert ROIWarpPooler((4, 6), SCALES)(pyramid(), boxes).shape == (16, 3, 4, 6)


def test_no_boxes_and_no_images(implementation):
    pooler = ROIWarpPooler(4, SCALES, max_pool=2)
    none = [Boxes(torch.zeros(0, 4))] * 2
    assert pooler(pyramid(), none).shape == (0, 3, 2, 2)
    assert pooler(pyramid(images=0), []).shape == (0, 3, 2, 2)


def test_boxes_that_are_not_numbers_give_zeros(implementation):
    boxes = boxes_of_many_sizes()
    boxes[0].tensor[1] = float("nan")
    output = ROIWarpPooler(4, SCALES)(pyramid(), boxes)
    assert not output[1].any() and output[0].any()


def test_half_features_keep_their_type(implementation):
    boxes = boxes_of_many_sizes()
    output = ROIWarpPooler(4, SCALES)(pyramid(dtype=torch.bfloat16), boxes)
    assert output.dtype == torch.bfloat16 and output.any()


@pytest.mark.parametrize("scales", [[1 / 4, 1 / 16], [1 / 3], [1 / 8, 1 / 4], [2.0]])
def test_scales_that_are_no_pyramid_are_refused(scales):
    with pytest.raises(ValueError, match="scales"):
        ROIWarpPooler(4, scales)


def test_wrong_numbers_of_maps_and_lists_are_refused():
    pooler, boxes = ROIWarpPooler(4, SCALES), boxes_of_many_sizes()
    with pytest.raises(ValueError, match="feature maps"):
        pooler(pyramid()[:2], boxes)
    with pytest.raises(ValueError, match="lists of boxes"):
        pooler(pyramid(), boxes[:1])
