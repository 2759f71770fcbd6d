"""The compiled library of operators: load it, and register autograd for its operators."""

import importlib.machinery
from collections.abc import Callable
from pathlib import Path

import torch


def load_library(folder: Path) -> tuple[frozenset[str], str]:
    """Load the library `_C` of a folder if it is there.

    Returns:
        The device types that its operators are compiled for, and the reason why no others are
        served, as the end of a sentence.
    """
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = folder / f"_C{suffix}"
        if library.exists():
            try:
                torch.ops.load_library(library)
            except OSError as error:  # compiled for another PyTorch
                return frozenset(), f"{library.name} cannot be loaded: {error}"
            if torch.ops.hybrid_cascade.compiled_with_cuda():
                return frozenset({"cpu", "cuda"}), "it is compiled for CPU and CUDA"
            return frozenset({"cpu"}), "it is compiled for the CPU only"
    return frozenset(), "it is not compiled"


compiled_devices, compiled_reason = load_library(Path(__file__).parent)


def register_first_order_autograd(name: str, backward: Callable, setup_context: Callable) -> None:
    """Register the gradient of the operator `hybrid_cascade::name`.

    Its backward pass is an operator too, `hybrid_cascade::{name}_backward`, which has no gradient:
    a second derivative raises NotImplementedError.

    Args:
        name: name of the operator.
        backward, setup_context: as in `torch.library.register_autograd`.
    """

    def second_backward(ctx, *grads):
        raise NotImplementedError(f"{name} can be differentiated once, not twice")

    torch.library.register_autograd(
        f"hybrid_cascade::{name}", backward, setup_context=setup_context
    )
    torch.library.register_autograd(f"hybrid_cascade::{name}_backward", second_backward)
