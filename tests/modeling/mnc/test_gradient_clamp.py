import pytest
import torch
from detectron2.structures import Boxes, Instances

from hybrid_cascade.modeling.mnc.gradient_clamp import (
    BoxGradientClamp,
    ClampedBoxes,
    clamps_of,
    tell_loss_scale,
)


def test_values_stay_and_gradients_are_clamped_to_the_bound_of_an_image():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = BoxGradientClamp(1.0, 2)(x)
    assert torch.equal(y, x)
    (y * torch.tensor([0.2, -3.0, 7.0])).sum().backward()
    assert x.grad.tolist() == [torch.tensor(0.2).item(), -0.5, 0.5]


def test_other_uses_of_the_tensor_are_not_limited():
    x = torch.tensor([1.0], requires_grad=True)
    (10 * BoxGradientClamp(1.0, 2)(x) + 10 * x).sum().backward()
    assert x.grad.item() == 10.5


def test_none_is_no_limit_and_tensors_without_gradient_pass():
    x = torch.tensor([1.0], requires_grad=True)
    (10 * BoxGradientClamp(None, 1)(x)).sum().backward()
    assert x.grad.item() == 10
    constant = torch.ones(2)
    assert BoxGradientClamp(0.5, 1)(constant) is constant


def clamped_losses(values=(1.0, 2.0), bound=1.0):
    """Two deltas, and the losses of a forward pass: 100 times the first, and half of the second."""
    x = torch.tensor(values, requires_grad=True)
    clamp = BoxGradientClamp(bound, 1)
    first, second = clamp(x)
    losses = tell_loss_scale({"a": first * 100, "b": second * 0.5}, [clamp])
    return x, losses["a"], losses["b"]


def test_the_bound_is_that_of_losses_that_are_not_scaled():
    x, a, b = clamped_losses()
    assert (a, b) == (100, 1)
    (8 * a + 8 * b).backward()
    assert x.grad.tolist() == [8.0, 4.0]
    # The next forward pass starts anew.
    x, a, b = clamped_losses()
    (a + b).backward()
    assert x.grad.tolist() == [1.0, 0.5]


def test_each_backward_pass_through_a_retained_graph_has_the_bound_of_its_own_scale():
    x, a, b = clamped_losses()
    for scale in (8.0, 1.0, 0.25, 2.0):
        [gradient] = torch.autograd.grad(scale * (a + b), x, retain_graph=True)
        assert gradient.tolist() == [scale, scale / 2]


@pytest.mark.parametrize("weights", [(8.0, 0.0), (0.0, 8.0), (8.0, 2.0)])
def test_the_largest_scale_counts_and_losses_of_weight_0_do_not(weights):
    x, a, b = clamped_losses()
    (weights[0] * a + weights[1] * b).backward()
    assert x.grad.tolist() == [min(100 * weights[0], 8.0), weights[1] / 2]


def test_losses_of_weight_0_leave_the_bound_of_other_uses_as_it_is():
    x = torch.tensor([1.0], requires_grad=True)
    clamp = BoxGradientClamp(1.0, 1)
    y = clamp(x)
    losses = tell_loss_scale({"a": (2 * y).sum()}, [clamp])
    (0 * losses["a"] + 10 * y.sum()).backward()
    assert x.grad.item() == 1


def test_a_loss_without_the_others_sets_the_scale():
    x, a, b = clamped_losses()
    (4 * a).backward()
    assert x.grad.tolist() == [4.0, 0.0]


def test_losses_with_a_minus_are_limited_alike():
    x, a, b = clamped_losses()
    (-8 * a - 8 * b).backward()
    assert x.grad.tolist() == [-8.0, -4.0]


def test_two_forward_passes_have_bounds_of_their_own_one_after_the_other_and_at_once():
    (x, a, b), (y, c, d) = clamped_losses(), clamped_losses()
    [by_x] = torch.autograd.grad(8 * (a + b), x, retain_graph=True)
    [by_y] = torch.autograd.grad(c + d, y, retain_graph=True)
    assert by_x.tolist() == [8.0, 4.0] and by_y.tolist() == [1.0, 0.5]
    by_x, by_y = torch.autograd.grad(16 * (a + b) + 2 * (c + d), [x, y])
    assert by_x.tolist() == [16.0, 8.0] and by_y.tolist() == [2.0, 1.0]


def test_several_clamps_of_a_forward_pass_have_their_own_bounds_and_the_scale_of_its_losses():
    x, y, z = (torch.tensor([1.0], requires_grad=True) for _ in range(3))
    one, other = BoxGradientClamp(1.0, 1), BoxGradientClamp(3.0, 1)
    losses = {"a": (10 * one(x) + 10 * one(y) + 10 * other(z)).sum()}
    (8 * tell_loss_scale(losses, [one, other])["a"]).backward()
    assert [t.grad.item() for t in (x, y, z)] == [8, 8, 24]


def test_losses_without_gradients_or_clamps_stay_what_they_are():
    x = torch.tensor([1.0], requires_grad=True)
    clamp = BoxGradientClamp(1.0, 1)
    losses = {"a": torch.tensor(3.0), "b": clamp(x).sum()}
    found = tell_loss_scale(losses, [clamp])
    assert found["a"] is losses["a"] and found["b"] == losses["b"]
    losses = {"b": BoxGradientClamp(None, 1)(x).sum()}
    assert tell_loss_scale(losses, [BoxGradientClamp(1.0, 1)])["b"] is losses["b"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_keep_their_types_and_scales_may_exceed_those_of_the_deltas(dtype):
    x = torch.tensor([1.0, 2.0], requires_grad=True, dtype=dtype)
    clamp = BoxGradientClamp(2**-10, 1)
    y = clamp(x)
    losses = tell_loss_scale({"a": 3 * y.sum().float(), "b": y[0] / 2**14}, [clamp])
    assert losses["a"].dtype == torch.float32 and losses["b"].dtype == dtype
    (2.0**17 * losses["a"]).backward()  # more than float16 can hold
    assert x.grad.dtype == dtype and x.grad.tolist() == [2.0**7] * 2


def test_bounds_are_found_without_waiting_for_the_device():
    """Tensors on the meta device have no values that Python could look at."""
    x = torch.ones(3, device="meta", requires_grad=True)
    clamp = BoxGradientClamp(1.0, 1)
    losses = tell_loss_scale({"a": clamp(x).sum(), "b": (2 * x).sum()}, [clamp])
    (8 * sum(losses.values())).backward()
    assert x.grad.shape == (3,)


def test_proposals_bring_their_clamps_each_once():
    clamp, other = BoxGradientClamp(1.0, 1), BoxGradientClamp(1.0, 1)
    boxes = torch.zeros(2, 4)
    kinds = [ClampedBoxes(boxes, clamp), Boxes(boxes), ClampedBoxes(boxes, other)]
    kinds += [ClampedBoxes(boxes, clamp), ClampedBoxes(boxes)[:1]]
    assert clamps_of([Instances((8, 8), proposal_boxes=b) for b in kinds]) == [clamp, other]
