"""Copy the structure of a model, but not its tensors."""

import copy

from torch import nn


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose modules can be replaced, with the very tensors of the model.

    Its hooks are those of the model too: what they are bound to is not copied.
    """
    kept = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            kept += hooks.values()
    return copy.deepcopy(model, {id(x): x for x in kept})
