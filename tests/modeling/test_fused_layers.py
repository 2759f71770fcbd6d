import copy
from functools import partial

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F

from hybrid_cascade.modeling import OneDNNLinear, fuse_layers


def make_conv(norm, **arguments):
    norm = get_norm(norm, 8) if isinstance(norm, str) else norm(8)
    if getattr(norm, "running_mean", None) is not None:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return Conv2d(4, 8, 3, norm=norm, activation=nn.ReLU(), **arguments)


def same_tensors(model, before):
    after = model.state_dict()
    return after.keys() == before.keys() and all(
        torch.equal(after[k], x) for k, x in before.items()
    )


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
@pytest.mark.parametrize(
    "arguments", [{"bias": False}, {"bias": True}, {"groups": 2, "stride": 2, "dilation": 2}]
)
@torch.no_grad()
def test_a_batch_norm_is_folded_into_its_convolution(norm, arguments):
    model = nn.Sequential(make_conv(norm, **arguments)).eval()
    before, x = copy.deepcopy(model.state_dict()), torch.randn(2, 4, 9, 9)
    fused = fuse_layers(model)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)
    assert fused[0].norm is None and fused(x).any()
    assert same_tensors(model, before) and model[0].norm is not None
    assert not model[0].activation.inplace


@torch.no_grad()
def test_a_model_in_training_mode_is_fused_with_its_running_statistics():
    model = nn.Sequential(make_conv("BN")).train()
    x = torch.randn(2, 4, 9, 9)
    fused = fuse_layers(model)
    assert model.training and model[0].norm.training and not fused.training
    assert model[0].norm.num_batches_tracked == 0
    torch.testing.assert_close(fused(x), model.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [partial(nn.GroupNorm, 4), "LN", partial(nn.BatchNorm2d, track_running_stats=False)],
    ids=["GN", "LN", "BN of the batch"],
)
@torch.no_grad()
def test_norms_that_depend_on_the_input_stay(norm):
    model = nn.Sequential(make_conv(norm)).eval()
    x = torch.randn(2, 4, 9, 9)
    fused = fuse_layers(model)
    assert torch.equal(fused(x), model(x))
    assert fused[0].norm is not None


@torch.no_grad()
def test_a_memory_format_stays():
    model = nn.Sequential(make_conv("FrozenBN")).to(memory_format=torch.channels_last)
    weight = fuse_layers(model)[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_layers_with_hooks_are_called():
    model = nn.Sequential(make_conv("FrozenBN"), nn.Flatten(), nn.Linear(8 * 49, 3)).eval()
    seen = []

    class Listener:
        def hear(self, module, inputs, output):
            seen.append((self, output))

    listener = Listener()
    model[0].norm.register_forward_hook(listener.hear)
    model[2].register_forward_hook(listener.hear)
    output = fuse_layers(model)(torch.randn(1, 4, 9, 9))
    assert [who for who, _ in seen] == [listener] * 2
    assert (seen[0][1] < 0).any()  # what the norm computed was not overwritten by the ReLU
    assert torch.equal(seen[1][1], output)


@pytest.mark.parametrize("name", ["htc_toy", "mask_rcnn_toy", "CascadeROIHeads", "Res5ROIHeads"])
@torch.no_grad()
def test_detections_are_the_same_up_to_rounding(name, make_lively_rcnn):
    model = make_lively_rcnn(name)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.running_mean += 0.05 * torch.randn_like(module.running_mean)
    before = copy.deepcopy(model.state_dict())
    images = [{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)} for _ in range(2)]
    fused = fuse_layers(model)
    folded = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d)]
    assert folded and not any(isinstance(m, type(folded[0])) for m in fused.modules())
    for image in images:
        [found], [expected] = (m([dict(image)]) for m in (fused, model))
        found, expected = found["instances"], expected["instances"]
        assert len(found) == len(expected) > 0
        assert torch.equal(found.pred_classes, expected.pred_classes)
        for field in ("pred_boxes", "scores"):
            pair = [getattr(x.get(field), "tensor", x.get(field)) for x in (found, expected)]
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-3)
        assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-3
    assert same_tensors(model, before)


def test_a_training_step_after_fusing_is_the_same(tiny_config, inputs):
    model = instantiate(tiny_config("htc_toy"))
    steps = []
    for fuses in (False, True):
        torch.manual_seed(0)
        model.train().zero_grad()
        if fuses:
            fuse_layers(model)
        with EventStorage():
            losses = model(copy.deepcopy(inputs))
        sum(losses.values()).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        steps.append({**{k: v.detach() for k, v in losses.items()}, **grads})
    assert steps[0].keys() == steps[1].keys()
    assert all(torch.equal(x, steps[1][k]) for k, x in steps[0].items())


def test_a_linear_layer_in_onednn_is_the_layer():
    layer = nn.Linear(300, 40)
    ours = OneDNNLinear.of(layer)
    assert ours.weight is layer.weight and ours.bias is layer.bias
    shapes = [(7, 300), (0, 300), (2, 3, 300)]
    with torch.no_grad():
        for shape in shapes:
            x = torch.randn(shape)
            torch.testing.assert_close(ours(x), layer(x), rtol=1e-5, atol=1e-5)
        without_bias = nn.Linear(300, 40, bias=False)
        x = torch.randn(7, 300)
        torch.testing.assert_close(
            OneDNNLinear.of(without_bias)(x), without_bias(x), rtol=1e-5, atol=1e-5
        )
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(x).dtype == torch.bfloat16
    x = torch.randn(7, 300, requires_grad=True)
    grads = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (ours, layer)]
    torch.testing.assert_close(*grads)
    assert torch.equal(F.linear(x, layer.weight, layer.bias), ours(x))
