"""Find weights that no training has left: NaN, infinite, of integers, and others."""

import torch

# Tensors of these layers' names have fractions in every model.
_FRACTIONS = ("weight", "bias", "running_mean", "running_var")
_LEAST_VARIANCE = -1e-4  # folding epsilon in and out leaves such variances


def find_fault(name: str, tensor: torch.Tensor, like: torch.Tensor | None = None) -> str:
    """Return what is wrong with a tensor of a checkpoint, such as "w is NaN at 3 of 4 places".

    Args:
        name: of the tensor.
        tensor: its values.
        like: the tensor of the model that takes them, if it is known.

    Returns:
        The name and the fault; "" if there is none.
    """
    if tensor.layout != torch.strided or tensor.is_quantized:
        return f"{name} is {'quantized' if tensor.is_quantized else 'sparse'}, not a plain tensor"
    wants_fractions = (
        name.rpartition(".")[2] in _FRACTIONS if like is None else like.is_floating_point()
    )
    has_other_kind = tensor.is_floating_point() != wants_fractions
    if tensor.is_complex() or has_other_kind and (wants_fractions or like is not None):
        expected = "floating-point numbers" if wants_fractions else "integers"
        return f"{name} has values of {tensor.dtype}, not {expected}"
    if not tensor.is_floating_point() or tensor.is_meta:
        return ""
    values = tensor.detach().to(torch.float32 if like is None else like.dtype)
    finite = torch.isfinite(values)
    if not finite.all():
        kind = "NaN" if values.isnan().any() else "infinite"
        return f"{name} is {kind} at {int((~finite).sum())} of {values.numel()} places"
    if name.endswith("running_var") and (values < _LEAST_VARIANCE).any():
        return f"{name} has negative variances, {values.min():.3g}"
    return ""
