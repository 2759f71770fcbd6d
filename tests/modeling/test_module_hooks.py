import pytest
import torch
from torch import nn

from hybrid_cascade.modeling.module_hooks import has_hooks


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_finds_hooks_of_modules_inside_and_forgets_removed_ones(register):
    quiet, outer = nn.ReLU(), nn.Sequential(nn.Sequential(nn.ReLU()))
    assert not has_hooks(quiet, outer)
    handle = getattr(outer[0][0], register)(lambda *args: None)
    assert has_hooks(quiet, outer)
    assert not has_hooks(quiet)
    handle.remove()
    assert not has_hooks(quiet, outer)


def test_finds_hooks_of_all_modules():
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        assert has_hooks(nn.ReLU())
    finally:
        handle.remove()
    assert not has_hooks(nn.ReLU())
