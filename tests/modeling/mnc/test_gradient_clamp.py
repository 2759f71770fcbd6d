import torch

from hybrid_cascade.modeling.mnc.gradient_clamp import limit_gradient, watch_loss_scale


def test_values_stay_and_gradients_are_clamped_to_the_bound_of_an_image():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = limit_gradient(x, 1.0, 2)
    assert torch.equal(y, x)
    (y * torch.tensor([0.2, -3.0, 7.0])).sum().backward()
    assert x.grad.tolist() == [torch.tensor(0.2).item(), -0.5, 0.5]


def test_other_uses_of_the_tensor_are_not_limited():
    x = torch.tensor([1.0], requires_grad=True)
    (10 * limit_gradient(x, 1.0, 2) + 10 * x).sum().backward()
    assert x.grad.item() == 10.5


def test_none_is_no_limit_and_tensors_without_gradient_pass():
    x = torch.tensor([1.0], requires_grad=True)
    (10 * limit_gradient(x, None, 1)).sum().backward()
    assert x.grad.item() == 10
    constant = torch.ones(2)
    assert limit_gradient(constant, 0.5, 1) is constant


def test_the_bound_is_that_of_losses_that_are_not_scaled():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    limited = limit_gradient(x, 1.0, 1)
    losses = [limited[0] * 100, limited[1] * 0.5, limited.sum()]
    for loss in losses:
        watch_loss_scale(loss)
    (8 * losses[0] + 8 * losses[1] + 0 * losses[2]).backward()
    assert x.grad.tolist() == [8.0, 4.0]
    # The next forward pass starts anew.
    x.grad = None
    (limit_gradient(x, 1.0, 1) * 100).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
