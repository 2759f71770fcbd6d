"""Autograd of an operator whose backward pass is an operator, too."""

from collections.abc import Callable

import torch


def register_differentiable_once(name: str, backward: Callable, setup_context: Callable) -> None:
    """Give `hybrid_cascade::name` a gradient, which itself has none but says so.

    Args:
        name: of the operator; `{name}_backward` is that of its backward pass.
        backward, setup_context: as in `torch.library.register_autograd`.
    """

    def second_backward(ctx, *grads):
        raise NotImplementedError(f"{name} can be differentiated once, not twice")

    torch.library.register_autograd(
        f"hybrid_cascade::{name}", backward, setup_context=setup_context
    )
    torch.library.register_autograd(f"hybrid_cascade::{name}_backward", second_backward)
