import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from hybrid_cascade.engine.hooks import CheckLosses, CheckWeights, NotFiniteError


class Line(nn.Module):
    """Its losses are its weight times the "x" of the images, and the weight itself."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images):
        x = sum(image["x"] for image in images)
        if x < 0:
            raise FloatingPointError("Predicted boxes contain NaN.")
        return {"loss_product": self.weight.sum() * x, "loss_weight": self.weight.sum()}


def make_loop(*xs):
    model = Line()
    batches = [[{"file_name": f"{x}.png", "x": x}] for x in xs]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = SimpleTrainer(model, batches, optimizer)
    check = CheckLosses()
    loop.register_hooks([check])
    loop.iter, loop.max_iter = 7, 10
    loop.before_train()
    return loop, check


def step(loop):
    with EventStorage(loop.iter) as loop.storage:
        loop.run_step()


@pytest.mark.parametrize("x", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_losses_and_images_before_the_weights_change(x):
    loop, _ = make_loop(2.0, x)
    step(loop)
    weight = loop.model.weight.clone()
    loop.iter = 8
    message = f"iteration 8: .*loss_product = {x}, loss_weight = 0.7 .*images.*{x}.png"
    with pytest.raises(NotFiniteError, match=message):
        step(loop)
    assert torch.equal(loop.model.weight, weight)


def test_gradients_may_be_infinite_as_they_are_at_times_in_mixed_precision():
    loop, _ = make_loop(2.0)
    loop.model.weight.register_hook(lambda gradient: gradient * float("inf"))
    step(loop)


def test_what_a_forward_pass_says_itself_gets_its_images_and_the_losses_before():
    loop, check = make_loop(2.0, -1.0)
    step(loop)
    with pytest.raises(FloatingPointError) as caught:
        step(loop)
    message = str(check.explain(caught.value))
    assert "at iteration 7: Predicted boxes contain NaN." in message
    assert "-1.0.png" in message and "loss_product = 2," in message


def test_the_model_has_no_hooks_and_no_images_are_kept_after_a_training():
    loop, _ = make_loop(2.0)
    step(loop)
    loop.storage = EventStorage()
    loop.after_train()
    assert not loop.model._forward_hooks and not loop.model._forward_pre_hooks


@pytest.mark.parametrize("name", ["weight", "norm.running_var"])
def test_weights_that_are_not_finite_stop_before_a_checkpoint(name):
    loop, _ = make_loop()
    check = CheckWeights(period=4)
    loop.register_hooks([check])
    loop.model.state_dict()[name].fill_(float("nan"))
    loop.iter = 5  # no checkpoint is due
    check.after_step()
    for due in (7, 9):  # by the period; the last iteration
        loop.iter = due
        with pytest.raises(NotFiniteError, match=f"after iteration {due}.*: {name}\\."):
            check.after_step()
