"""Weights that need no file: numbers that follow from the name and the shape of a tensor."""

import zlib
from collections.abc import Mapping, Sequence

import torch


def filled_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return a tensor of each shape, float32, with which activations keep their magnitude.

    Args:
        shapes: of the tensors by name. Counters of batch norms are zero.
    """
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        size = torch.Size(shape)
        phase = zlib.crc32(name.encode()) % 1000
        # Waves in float64, whose last digits differ between processors, are equal in float32.
        waves = torch.sin(torch.arange(size.numel(), dtype=torch.float64) * 1.7 + phase)
        if len(size) > 1:
            waves = waves * (3 / (size.numel() / size[0])) ** 0.5
        elif name.endswith(("weight", "gamma", "running_var")):
            waves = 1 + 0.5 * waves
        tensors[name] = waves.reshape(size).float()
    return tensors
