"""Export models to formats that run without this project's Python code."""

from .torchscript import (
    check_traceable,
    detect,
    largest_differences,
    pool_with_torchvision,
    trace,
)

__all__ = [
    "check_traceable",
    "detect",
    "largest_differences",
    "pool_with_torchvision",
    "trace",
]
