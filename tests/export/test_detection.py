"""What a graph records, in eager mode."""

import pytest
import torch
from detectron2.modeling import MViT, SwinTransformer
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

from hybrid_cascade.export import check_traceable, detect_and_paste


class Detector(nn.Module):
    """Detects this many boxes, some of them outside of the image, with or without masks."""

    def __init__(self, number, with_masks):
        super().__init__()
        self.number, self.with_masks = number, with_masks

    def inference(self, batched_inputs, do_postprocess):
        generator = torch.Generator().manual_seed(0)
        corners = torch.rand(self.number, 2, generator=generator) * 120 - 20
        sizes = torch.rand(self.number, 2, generator=generator) * 60
        found = Instances((80, 100), pred_boxes=Boxes(torch.cat([corners, corners + sizes], 1)))
        found.scores = torch.rand(self.number, generator=generator)
        if self.with_masks:
            found.pred_masks = torch.rand(self.number, 1, 14, 14, generator=generator)
        return [found]


@pytest.mark.parametrize("number, with_masks", [(30, True), (0, True), (30, False)])
def test_detections_are_pasted_as_detectron2_does(number, with_masks):
    model = Detector(number, with_masks)
    [expected] = [detector_postprocess(x, 200, 130) for x in model.inference([], False)]
    [found] = detect_and_paste(model, [], torch.tensor([200, 130]))
    assert 0 < len(expected) < 30 or number == 0  # those outside of the image are left out
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert tuple(found.image_size) == (200, 130)
    assert found.has("pred_masks") == with_masks
    if with_masks:
        assert found.pred_masks.shape == expected.pred_masks.shape == (len(expected), 200, 130)
        assert torch.equal(found.pred_masks, expected.pred_masks)


def with_attribute(name, value):
    model = nn.Module()
    setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: heads(soft_nms="linear"), "set model.roi_heads.soft_nms=none"),
        (lambda: heads(test_output="voting"), "set model.roi_heads.test_output=nms"),
        (lambda: with_attribute("output_sem_seg", True), "set model.output_sem_seg=False"),
        (
            lambda: with_attribute("output_panoptic_seg", True),
            "set model.output_panoptic_seg=False",
        ),
        (lambda: with_attribute("proposal_generator", None), "has no proposal_generator"),
        (
            lambda: SwinTransformer(embed_dim=12, num_heads=[1] * 4),
            "SwinTransformer .* one size only",
        ),
        (lambda: MViT(embed_dim=8, depth=4, last_block_indexes=range(4)), "MViT .* one size only"),
    ],
)
def test_what_a_trace_cannot_record_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        check_traceable(model())


def heads(**switches):
    return with_attribute("roi_heads", with_attribute(*switches.popitem()))
