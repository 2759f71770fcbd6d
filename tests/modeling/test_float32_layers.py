import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from hybrid_cascade.model_zoo import get_config
from hybrid_cascade.modeling import Float32Layer, with_float32_outputs
from hybrid_cascade.modeling.inference_steps import extract_features, propose

R_CNNS = ["htc_toy", "mask_rcnn_toy", "CascadeROIHeads", "Res5ROIHeads"]
IN_16_BITS = {"dtype": torch.bfloat16, "device_type": "cpu"}


def make_image(height=64, width=96):
    return {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8)}


def make_model(name, tiny_config, make_lively_rcnn):
    if name in R_CNNS:
        return make_lively_rcnn(name)
    if name == "ssd_toy":
        return instantiate(get_config("quick_start/ssd_toy.py").model).eval()
    return instantiate(tiny_config(name)).eval()


def is_rounded(x):
    return torch.equal(x.bfloat16().float(), x)


def tensors_of(instances):
    fields = {k: getattr(v, "tensor", v) for k, v in instances.get_fields().items()}
    return {k: v for k, v in fields.items() if torch.is_floating_point(v)}


@pytest.mark.parametrize("name", [*R_CNNS, "mnc_toy", "ssd_toy", "htc_sfpn_toy"])
@torch.no_grad()
def test_layers_before_compute_in_16_bits_and_results_are_float32(
    name, tiny_config, make_lively_rcnn
):
    model = with_float32_outputs(make_model(name, tiny_config, make_lively_rcnn))
    seen = {torch.float32: set(), torch.bfloat16: set()}
    inside = {m.layer for m in model.modules() if isinstance(m, Float32Layer)}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, _, output: seen[output.dtype].add(m))
    with torch.autocast(**IN_16_BITS):
        [output] = model([make_image()])
    assert inside and seen[torch.float32] <= inside
    assert len(seen[torch.bfloat16]) > 10 and not seen[torch.bfloat16] & inside
    names = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, Float32Layer)}
    assert (
        names >= {"objectness_logits", "anchor_deltas", "cls_score", "bbox_pred"} or "ssd" in name
    )
    found = output["instances"]
    assert all(x.dtype == torch.float32 for x in tensors_of(found).values())


@pytest.mark.parametrize("name", R_CNNS)
@torch.no_grad()
def test_coordinates_and_scores_are_not_rounded_to_16_bits(name, make_lively_rcnn):
    model = with_float32_outputs(make_lively_rcnn(name))
    inputs = [make_image(480, 640)]
    with torch.autocast(**IN_16_BITS):
        images = model.preprocess_image(inputs)
        features, _ = extract_features(model, images)
        [proposals], _ = propose(model, images, features, inputs)
        [found] = model.inference(inputs, do_postprocess=False)
    assert all(x.dtype == torch.bfloat16 for x in features.values())
    for instances in (proposals, found):
        for key, x in tensors_of(instances).items():
            assert x.dtype == torch.float32, key
            assert not is_rounded(x) or "masks" in key, key


@torch.no_grad()
def test_sem_seg_is_float32(make_lively_rcnn):
    model = with_float32_outputs(make_lively_rcnn("htc_toy"))
    model.output_sem_seg = True
    with torch.autocast(**IN_16_BITS):
        [output] = model([make_image()])
    assert output["sem_seg"].dtype == torch.float32 and not is_rounded(output["sem_seg"])


@pytest.mark.parametrize("name", R_CNNS)
@torch.no_grad()
def test_without_autocast_the_copy_is_the_model(name, make_lively_rcnn):
    model = make_lively_rcnn(name)
    keys, image = list(model.state_dict()), make_image()
    copy = with_float32_outputs(model)
    [found], [expected] = (m([dict(image)]) for m in (copy, model))
    found, expected = found["instances"], expected["instances"]
    assert len(found) > 0 and torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_masks, expected.pred_masks)
    assert list(model.state_dict()) == keys
    assert not any(isinstance(m, Float32Layer) for m in model.modules())


def test_a_model_whose_last_layers_are_unknown_is_refused():
    with pytest.raises(ValueError, match="Sequential can't infer in 16 bits.*TEST.INFERENCE.DTYPE"):
        with_float32_outputs(nn.Sequential(nn.Linear(2, 2)))
