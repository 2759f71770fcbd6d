import pytest
import torch
from torch import nn

from hybrid_cascade.engine.hooks import AverageWeights


def make_model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def train(model, hook, steps):
    """Change the weights as a training does; return their history."""
    history = []
    for number in range(steps):
        with torch.no_grad():
            model[0].weight.add_(number + 1.0)
            model(torch.randn(4, 2) + number)
        hook.after_step()
        history.append({k: v.clone() for k, v in model.state_dict().items()})
    return history


@pytest.mark.parametrize("decay", [0.2, 0.999])
def test_averages_are_exponential_with_a_decay_that_grows_from_the_start(decay):
    model = make_model()
    hook = AverageWeights(model, decay)
    history = train(model, hook, 6)
    for name in ("0.weight", "0.bias", "1.running_mean", "1.running_var"):
        expected = history[0][name]
        for number, weights in enumerate(history[1:], start=1):
            d = min(decay, (1 + number) / (10 + number))
            expected = d * expected + (1 - d) * weights[name]
        torch.testing.assert_close(hook.model.state_dict()[name], expected)
    assert not torch.equal(hook.model[0].weight, model[0].weight)


def test_the_averaged_model_is_for_inference_and_the_trained_one_stays_as_it_is():
    model = make_model()
    hook = AverageWeights(model, 0.9)
    train(model, hook, 2)
    assert not any(module.training for module in hook.model.modules())
    assert not any(parameter.requires_grad for parameter in hook.model.parameters())
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_a_state_continues_the_averages():
    model = make_model()
    hook = AverageWeights(model, 0.999)
    train(model, hook, 3)
    other_model = make_model()
    other = AverageWeights(other_model, 0.999)
    other.model.load_state_dict(hook.model.state_dict())  # as a checkpoint does
    other.load_state_dict(hook.state_dict())
    for one, its_model in ((hook, model), (other, other_model)):
        torch.manual_seed(1)
        train(its_model, one, 2)
    for a, b in ((model, other_model), (hook.model, other.model)):
        assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
