import torch
from torch import nn

from hybrid_cascade.modeling.shared_copy import shared_copy


def test_the_copy_has_the_tensors_but_not_the_modules_of_the_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.other = model[0]  # a module may have several names
    shared = shared_copy(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert shared.state_dict(keep_vars=True)[name] is tensor
    assert shared[0] is not model[0] and shared.other is shared[0]
    shared[1] = nn.Identity()
    assert isinstance(model[1], nn.BatchNorm1d)


def test_hooks_are_those_of_the_model():
    class Counter:
        calls = 0

        def count(self, *_):
            self.calls += 1

    counter, model = Counter(), nn.Linear(2, 2)
    model.register_forward_hook(counter.count)
    model.register_forward_pre_hook(counter.count)
    shared_copy(model)(torch.ones(1, 2))
    assert counter.calls == 2
