import torch

from hybrid_cascade.modeling.limit_gradient import limit_gradient


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
