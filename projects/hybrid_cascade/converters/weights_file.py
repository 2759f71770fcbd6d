"""Read checkpoints of PyTorch, Detectron2 and safetensors without running code from the file."""

import os
import pickle
import zipfile
from typing import Any

import numpy as np
import torch

from .safe_pickle import RefusedObjectError, load_arrays

_STRIP = (
    "python -c \"import torch; c = torch.load('{path}', map_location='cpu', weights_only=False); "
    "torch.save({{'model': c.get('state_dict') or c.get('model') or c}}, 'weights.pth')\""
)
_STRIP_PICKLE = (
    "python -c \"import pickle, torch; c = pickle.load(open('{path}', 'rb'), encoding='latin1'); "
    "torch.save({{'model': {{k: torch.as_tensor(v) for k, v in c['model'].items()}}}}, "
    "'weights.pth')\""
)
_HOLDERS = ("model", "state_dict", "model_state", "blobs")
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # a number that starts PyTorch's files from before 1.6


class DamagedFileError(ValueError):
    """A file is truncated, was changed after it was written, or is no checkpoint at all."""


def read_file(path: str, *, unsafe: bool = False, lazy: bool = False) -> Any:
    """Return what a file holds, with tensors on the CPU.

    Its kind follows from what it starts with: a zip archive of PyTorch, an older file of PyTorch, a
    pickle with NumPy arrays. Files that end in .safetensors are read as such. The checksums of an
    archive are compared; the other kinds have none.

    Args:
        path: of a local file.
        unsafe: let the file create any object, and so run any code.
        lazy: leave the tensors of an archive on the disk until they are used. The file must not
            change as long as they are.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is damaged or no checkpoint.
        ValueError: if it needs `unsafe`, or a package that is not installed.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path!r}")
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise DamagedFileError(f"{path} is not a checkpoint: it is empty")
    if start.startswith(b"PK"):
        _check_archive(path)
        return _read(path, unsafe, mmap=lazy)
    if _MAGIC in start:
        return _read(path, unsafe)
    # Pickles of Python 2 have no mark at the start.
    if start.startswith(b"\x80") or (path.endswith(".pkl") and start[:1] in b"(}]cd"):
        return _read(path, unsafe, arrays=True)
    raise DamagedFileError(
        f"{path} is not a checkpoint: it starts with {start[:16]!r}, perhaps as the page of a "
        "failed download"
    )


def read_weights(path: str, unsafe: bool = False) -> dict[str, torch.Tensor]:
    """Return the state dict that a file holds, on the CPU; see `read_file`.

    Args:
        path: a file whose content is a state dict, or has one under "model", "state_dict",
            "model_state" (pycls) or "blobs" (Caffe2).
        unsafe: let the file create any object, and so run any code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, is no checkpoint, has no weights or anything else among them,
            or needs `unsafe`.
    """
    return find_weights(read_file(path, unsafe=unsafe), path)


def find_weights(content: Any, path: str) -> dict[str, torch.Tensor]:
    """Return the tensors by name in what `read_file` has read; see `read_weights`."""
    is_dict = isinstance(content, dict)
    holders = [key for key in _HOLDERS if is_dict and isinstance(content.get(key), dict)]
    weights = content[holders[0]] if holders else content
    tensors = {}
    if isinstance(weights, dict):
        for name, value in weights.items():
            is_tensor = isinstance(value, torch.Tensor | np.ndarray | np.generic)
            # Values such as "epoch" may stand beside the weights of a plain state dict.
            if is_tensor or holders or "." in str(name):
                tensors[str(name)] = _to_tensor(value, name, path)
    if not tensors:
        found = list(content)[:8] if is_dict else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds no weights, but {found}")
    return tensors


def _to_tensor(value: Any, name: Any, path: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            raise ValueError(f"{path}: {name!r} has a shape and no values (device 'meta')")
        return value
    if isinstance(value, np.ndarray | np.generic):
        try:
            array = np.asarray(value)
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        except TypeError:
            raise ValueError(
                f"{path}: {name!r} is an array of {value.dtype}, not of numbers"
            ) from None
    raise ValueError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor")


def _check_archive(path: str) -> None:
    """Raise an error if a zip archive is not a checkpoint of PyTorch, or if a checksum is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name.rpartition("/")[2] for name in archive.namelist()}
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive can raise anything
        raise DamagedFileError(f"{path} is truncated or damaged: {error}") from error
    if damaged is not None:
        raise DamagedFileError(f"{path} is damaged: the checksum of {damaged} is wrong")
    # Before PyTorch 2.6, torch.load ran the code of a program in spite of `weights_only`.
    if "constants.pkl" in files or "data.pkl" not in files:
        kind = "a TorchScript program" if "constants.pkl" in files else "another zip archive"
        raise DamagedFileError(f"{path} is not a checkpoint, but {kind}")


def _read(path: str, unsafe: bool, *, arrays: bool = False, mmap: bool = False) -> Any:
    """Read a file of PyTorch, or a pickle with NumPy arrays."""
    try:
        if arrays:
            with open(path, "rb") as file:
                if unsafe:
                    return pickle.load(file, encoding="latin1")
                return load_arrays(file)
        return torch.load(path, map_location="cpu", weights_only=not unsafe, mmap=mmap)
    except Exception as error:  # a damaged pickle can raise anything
        if refused := _find_refused_object(error):
            strip = _STRIP_PICKLE.format(path=path) if arrays else _STRIP.format(path=path)
            raise ValueError(
                f"{path} holds more than tensors and plain values ({refused}). Creating such "
                "objects runs code that the file names. MMDetection's training checkpoints have "
                "them under 'meta' and 'message_hub'. If you trust its origin, pass --unsafe-load "
                "to tools/convert_checkpoint.py, or strip the file where the packages that it "
                f"names are installed: {strip}"
            ) from error
        if unsafe and isinstance(error, ImportError | AttributeError):
            raise ValueError(
                f"{path} holds objects of a package that is not installed here ({error}). Strip it "
                f"where it is, and convert the result: {_STRIP.format(path=path)}"
            ) from error
        first_line = str(error).partition("\n")[0] or type(error).__name__
        raise DamagedFileError(f"{path} is truncated or damaged: {first_line}") from error


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f"To read {path}: pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:
        raise DamagedFileError(
            f"{path} is truncated or damaged, or no safetensors file: {error}"
        ) from error


def _find_refused_object(error: Exception) -> str:
    """Return what a safe loader refused to create, "" if the error has another cause."""
    if isinstance(error, RefusedObjectError):
        return f"Unsupported global: {error}"
    for line in str(error).splitlines():
        for sign in ("Unsupported global:", "Unsupported class", "Can only build Tensor"):
            if sign in line:
                return line[line.index(sign) :].split(" was not ")[0].strip()
    return ""
