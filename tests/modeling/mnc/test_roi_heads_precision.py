"""Training and inference in mixed precision."""

import pytest
import torch
from detectron2.config import instantiate

from .small_heads import make_features, make_heads, make_proposals, make_targets, train


@pytest.mark.parametrize("global_context", [False, True])
def test_mixed_precision_trains_and_infers(storage, make_ground_truth, global_context):
    heads = make_heads(global_context=global_context)
    targets = make_targets(make_ground_truth)
    exact = train(heads, make_features(), make_proposals(targets), targets)
    proposals = make_proposals(targets)
    boxes = [p.proposal_boxes.tensor for p in proposals]
    with torch.autocast("cpu", torch.bfloat16):
        half = {k: v.bfloat16() for k, v in make_features().items()}
        losses = train(heads, half, proposals, targets)
        for name, loss in losses.items():
            assert loss.item() == pytest.approx(exact[name].item(), rel=0.5, abs=0.1)
        sum(losses.values()).backward()
        assert all(b.grad.abs().max() > 0 for b in boxes)
        with torch.no_grad():
            for output in ("voting", "nms", "boxes"):
                heads.test_output = output
                found = heads.eval()(None, half, make_proposals(targets))[0]
                assert all(len(f) and f.pred_boxes.tensor.dtype == torch.float32 for f in found)


def test_the_toy_model_trains_and_infers_in_mixed_precision(tiny_config, inputs, storage):
    config = tiny_config("mnc_toy")
    config.vis_period = 1  # draws the proposals
    model = instantiate(config)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(inputs)
        sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model.eval()([{k: v for k, v in x.items() if k != "instances"} for x in inputs])
    for output, x in zip(found, inputs, strict=True):
        masks = output["instances"].pred_masks
        assert len(masks) and masks.shape[1:] == (x["height"], x["width"])


def test_the_box_of_the_whole_image_is_exact_in_half_precision(make_ground_truth):
    """Multiples of 8 are all that bfloat16 knows above 1024."""
    heads = make_heads(global_context=True).eval()
    pool, asked = heads.pooler.forward, []
    heads.pooler.forward = lambda maps, boxes: asked.append(boxes) or pool(maps, boxes)
    proposals = make_proposals(make_targets(make_ground_truth))
    for p in proposals:
        p._image_size = (801, 1333)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        heads.find_candidates({"p2": make_features()["p2"].bfloat16()}, proposals)
    assert asked[1][0].tensor.tolist() == [[0, 0, 1333, 801]]
