"""Hooks of modules that a faster path takes the place of."""

from torch import nn
from torch.nn.modules import module as torch_module


def has_hooks(*modules: nn.Module) -> bool:
    """Return whether a call of one of the modules, or of a module inside one, would run a hook.

    A path that computes what these modules compute without calling them is taken only if nobody
    listens to them.
    """
    return torch_module._has_any_global_hook() or any(
        hooks
        for module in modules
        for part in module.modules()
        for hooks in (
            part._forward_pre_hooks,
            part._forward_hooks,
            part._backward_pre_hooks,
            part._backward_hooks,
        )
    )
