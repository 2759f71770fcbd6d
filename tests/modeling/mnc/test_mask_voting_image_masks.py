import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from hybrid_cascade.modeling import ImageMasks


def instances_of(masks):
    """Instances with these masks and boxes that would misplace them."""
    boxes = torch.tensor([[1.0, 1.0, 4.0, 3.0]]).repeat(len(masks), 1)
    return Instances(masks.shape[1:], pred_boxes=Boxes(boxes), pred_masks=ImageMasks(masks))


def test_postprocessing_to_the_same_size_keeps_the_masks():
    masks = torch.rand(37, 19, 23) > 0.5
    result = detector_postprocess(instances_of(masks), 19, 23)
    assert torch.equal(result.pred_masks, masks)


def test_postprocessing_resizes_the_masks_with_the_image():
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 4:12] = True
    masks[1, :, 19] = True
    doubled = torch.zeros(2, 20, 40, dtype=torch.bool)
    doubled[0, 4:10, 8:24] = True
    doubled[1, :, 38:] = True
    result = detector_postprocess(instances_of(masks), 20, 40)
    assert torch.equal(result.pred_masks, doubled)
    assert result.pred_boxes.tensor[0].tolist() == [2, 2, 8, 6]
    halved = detector_postprocess(instances_of(doubled), 10, 20)
    assert torch.equal(halved.pred_masks, masks)


def test_postprocessing_thresholds_the_resized_masks():
    masks = torch.tensor([[[True, False]]])
    boxes = Boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    # Values: 1, 0.75, 0.25, 0.
    for threshold, count in [(0.2, 3), (0.25, 3), (0.5, 2), (0.75, 2), (0.8, 1)]:
        resized = ImageMasks(masks).to_bitmasks(boxes, 1, 4, threshold)
        assert resized.tensor.sum() == count


def test_postprocessing_drops_the_masks_of_empty_boxes():
    masks = torch.rand(3, 6, 6) > 0.5
    instances = instances_of(masks)
    instances.pred_boxes.tensor[1] = 0
    result = detector_postprocess(instances, 6, 6)
    assert torch.equal(result.pred_masks, masks[[0, 2]])


def test_no_masks_are_postprocessed_to_no_masks():
    result = detector_postprocess(instances_of(torch.zeros(0, 10, 20, dtype=torch.bool)), 5, 7)
    assert len(result) == 0
    assert result.pred_masks.shape == (0, 5, 7) and result.pred_masks.dtype == torch.bool


def test_indexing_and_moving_keep_the_class():
    masks = torch.rand(4, 3, 5) > 0.5
    chosen = torch.tensor([True, False, False, True])
    for item in (slice(1, 3), chosen, torch.tensor([2, 0])):
        selected = ImageMasks(masks)[item]
        assert type(selected) is ImageMasks and torch.equal(selected.tensor, masks[item])
    assert type(ImageMasks(masks).to("cpu")) is ImageMasks
    assert type(instances_of(masks).to("cpu")[1].pred_masks) is ImageMasks
    with pytest.raises(ValueError):
        ImageMasks(masks)[1]
