"""Read the tensors of a PyTorch or Detectron2 checkpoint without running code from the file."""

import os
import pickle
from typing import Any

import numpy as np
import torch

_STRIP = (
    "python -c \"import torch; c = torch.load('{path}', map_location='cpu', weights_only=False); "
    "torch.save({{'state_dict': c['state_dict']}}, 'weights.pth')\""
)


def read_weights(path: str, unsafe: bool = False) -> dict[str, torch.Tensor]:
    """Return the state dict of a PyTorch file or of a .pkl file of Detectron2, on the CPU.

    Args:
        path: a file whose content is a state dict, or has one under "state_dict" or "model".
        unsafe: let the file create any object, and so run any code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, is no checkpoint, has no weights, or needs `unsafe`.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path!r}")
    with open(path, "rb") as file:
        start = file.read(16)
    if not start.startswith((b"PK", b"\x80")):
        raise ValueError(
            f"{path} is not a checkpoint: "
            + (f"it starts with {start!r}" if start else "it is empty")
            + ". Is it the page of a failed download?"
        )
    try:
        content = _read_pickle(path, unsafe) if path.endswith(".pkl") else _read_torch(path, unsafe)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} holds objects of a package that is not installed here ({error}). Strip it "
            f"where it is, and convert the result: {_STRIP.format(path=path)}"
        ) from error
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        first_line = str(error).partition("\n")[0]
        if refused := _find_refused_object(error):
            raise ValueError(
                f"{path} holds more than tensors and plain values ({refused}). Creating such "
                "objects runs code that the file names. MMDetection's training checkpoints have "
                "them under 'meta' and 'message_hub'. If you trust its origin, pass --unsafe-load, "
                f"or strip the file where MMDetection is installed: {_STRIP.format(path=path)}"
            ) from error
        raise ValueError(f"{path} is truncated or damaged: {first_line}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {}
    if isinstance(content, dict):
        for name, value in content.items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value.copy())
            if isinstance(value, torch.Tensor):
                tensors[str(name)] = value
    if not tensors:
        found = list(content)[:8] if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds no weights, but {found}")
    return tensors


class _NumpyUnpickler(pickle.Unpickler):
    """An unpickler that creates NumPy arrays and refuses all other objects."""

    ALLOWED = frozenset(
        [
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
            *(("numpy", name) for name in ("ndarray", "dtype")),
            *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
            *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
        ]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"Unsupported global: {module}.{name}")
        return super().find_class(module, name)


def _read_pickle(path: str, unsafe: bool) -> Any:
    with open(path, "rb") as file:
        return (pickle.Unpickler if unsafe else _NumpyUnpickler)(file, encoding="latin1").load()


def _read_torch(path: str, unsafe: bool) -> Any:
    return torch.load(path, map_location="cpu", weights_only=not unsafe)


def _find_refused_object(error: Exception) -> str:
    """Return what a safe loader refused to create, "" if the error has another cause."""
    for line in str(error).splitlines():
        for sign in ("Unsupported global:", "Unsupported class", "Can only build Tensor"):
            if sign in line:
                return line[line.index(sign) :].split(" was not ")[0].strip()
    return ""
