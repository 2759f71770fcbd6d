"""RoI warp as an operator of PyTorch: torch.compile, determinism, memory, and what replaces it."""

import contextlib
import sys
import warnings

import pytest
import torch
from torch._subclasses import FakeTensorMode

from hybrid_cascade.layers import roi_warp
from hybrid_cascade.layers.extension import compiled_devices, compiled_reason

from .roi_warp_cases import gradients, random_boxes, random_features

module = sys.modules["hybrid_cascade.layers.roi_warp"]
needs_operator = pytest.mark.skipif(not compiled_devices, reason=compiled_reason)


def test_compiles_without_a_graph_break(implementation):
    input = random_features(2, 3, 8, 8, dtype=torch.float32)
    boxes = random_boxes(6, 2, 8, 8, dtype=torch.float32)

    def function(input, boxes):
        return roi_warp(input.relu(), boxes, 4, 0.9, 2) * 2

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with contextlib.ExitStack() as stack:
        if implementation == "compiled":
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("error")
        torch.testing.assert_close(compiled(input, boxes), function(input, boxes))
    torch.testing.assert_close(gradients(compiled, input, boxes), gradients(function, input, boxes))


def test_deterministic_algorithms_are_repeatable(implementation):
    input, boxes = (
        random_features(2, 65, 8, 8, dtype=torch.float32),
        random_boxes(200, 2, 8, 8, dtype=torch.float32),
    )
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            gradients(lambda i, b: roi_warp(i, b, 4, max_pool=2), input, boxes) for _ in "12"
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_operator
@pytest.mark.parametrize("max_pool", [1, 2])
def test_operator_passes_opcheck(max_pool):
    input = random_features(2, 3, 6, 6).requires_grad_()
    boxes = random_boxes(3, 2, 6, 6).requires_grad_()
    torch.library.opcheck(
        torch.ops.hybrid_cascade.roi_warp, (input, boxes, 4, 6, 0.9, max_pool, False, True)
    )
    argmax = torch.zeros(3, 3, 4 // max_pool, 6 // max_pool, dtype=torch.uint8)
    torch.library.opcheck(
        torch.ops.hybrid_cascade.roi_warp_backward,
        (
            torch.ones(argmax.shape, dtype=torch.float64),
            *(input.detach(), boxes.detach(), argmax, 4, 6, 0.9, max_pool, False, True, True),
        ),
    )


@needs_operator
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_fake_gradient_of_channels_last_features_has_the_layout_of_the_real_one(device):
    if device not in compiled_devices:
        pytest.skip(compiled_reason)
    with FakeTensorMode():
        input = torch.empty(2, 8, 6, 7, device=device, memory_format=torch.channels_last)
        boxes = torch.empty(3, 5, device=device)
        grad = torch.empty(3, 8, 4, 4, device=device)
        fake, _ = torch.ops.hybrid_cascade.roi_warp_backward(
            grad, input, boxes, torch.empty(0), 4, 4, 1.0, 1, False, True, False
        )
    # The real one on CUDA, emulated, is seen in test_roi_warp_inputs.py.
    assert fake.is_contiguous(memory_format=torch.channels_last) == (device == "cuda")


@needs_operator
def test_operator_itself_refuses_what_would_be_read_out_of_bounds():
    operators = torch.ops.hybrid_cascade
    input, boxes = torch.zeros(2, 3, 6, 6), torch.zeros(2, 5)
    with pytest.raises(RuntimeError, match="boxes must be"):
        operators.roi_warp(input, boxes[:, :4], 4, 4, 1.0, 1, False, False)
    argmax = torch.zeros(0, dtype=torch.uint8)
    settings = (4, 4, 1.0, 2, False, True, True)
    with pytest.raises(RuntimeError, match="indices of the maxima"):
        operators.roi_warp_backward(torch.zeros(2, 3, 2, 2), input, boxes, argmax, *settings)
    with pytest.raises(RuntimeError, match="grad does not fit"):
        operators.roi_warp_backward(torch.zeros(1, 3, 2, 2), input, boxes, argmax, *settings)


@needs_operator
@pytest.mark.parametrize("index", [-1.0, 2.0, float("nan")])
def test_the_backward_operator_checks_the_image_of_a_box_itself(kernels, index):
    input, boxes = torch.zeros(2, 3, 6, 6), torch.tensor([[index, 0, 0, 2, 2]])
    grad, argmax = torch.ones(1, 3, 4, 4), torch.zeros(0, dtype=torch.uint8)
    with pytest.raises((IndexError, RuntimeError), match="image index"):
        torch.ops.hybrid_cascade.roi_warp_backward(
            grad, input, boxes, argmax, 4, 4, 1.0, 1, False, True, True
        )


@needs_operator
def test_second_derivative_is_refused():
    input = random_features(1, 2, 6, 6).requires_grad_()
    boxes = random_boxes(2, 1, 6, 6).requires_grad_()
    (grad,) = torch.autograd.grad(roi_warp(input, boxes, 4).sum(), boxes, create_graph=True)
    with pytest.raises(NotImplementedError, match="once"):
        grad.sum().backward()


@needs_operator
def test_max_pool_does_not_store_the_samples():
    input, boxes = torch.zeros(1, 64, 8, 8), random_boxes(50, 1, 8, 8, dtype=torch.float32)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        output = roi_warp(input, boxes, 28, max_pool=2)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    assert allocated < 1.5 * output.numel() * output.element_size()


def test_without_the_operator_one_warning_says_so(monkeypatch):
    monkeypatch.setattr(module, "compiled_devices", frozenset())
    module._warn_of_reference.cache_clear()
    input, boxes = torch.zeros(1, 1, 4, 4), torch.zeros(1, 5)
    with pytest.warns(UserWarning, match="plain PyTorch") as caught:
        roi_warp(input, boxes, 2)
        roi_warp(input, boxes, 2)
    assert len(caught) == 1
    module._warn_of_reference.cache_clear()
