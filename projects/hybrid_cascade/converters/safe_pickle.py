"""Read pickled NumPy arrays and plain containers, and nothing else."""

import pickle
from importlib import import_module
from typing import IO, Any


class RefusedObjectError(pickle.UnpicklingError):
    """A file asks for an object that is neither an array nor a plain value."""


def load_arrays(file: IO[bytes]) -> Any:
    """Unpickle numbers, strings, plain containers, and NumPy arrays, written by NumPy 1 or 2.

    Strings of Python 2 are read as Latin-1, which files of Detectron2's model zoo need.

    Raises:
        RefusedObjectError: if the file asks for another object, which is not created; names it.
        Exception: of any kind, if the file is damaged.
    """
    return _ArrayUnpickler(file, encoding="latin1").load()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) in _NUMPY_CORE:
            return _find_in_numpy_core(module.rpartition(".")[2], name)
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise RefusedObjectError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedObjectError(f"the persistent object {pid!r}")


_ALLOWED = frozenset(
    [
        ("collections", "OrderedDict"),
        ("builtins", "set"),
        ("__builtin__", "set"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    ]
)
_NUMPY_CORE = frozenset(
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")  # NumPy 1 and 2
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
)


def _find_in_numpy_core(module: str, name: str) -> Any:
    """Return a function of the NumPy that is installed, which may be another than the file's."""
    try:
        core = import_module(f"numpy._core.{module}")
    except ImportError:
        core = import_module(f"numpy.core.{module}")
    return getattr(core, name)


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes of an array, which old protocols keep as text."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedObjectError(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")
