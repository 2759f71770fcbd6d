"""Export models to formats that run without this project's Python code."""

from .comparison import largest_differences, pool_with_torchvision
from .detection import check_traceable, detect, detect_and_paste
from .onnx import OnnxGraph, check_packages, export_onnx
from .torchscript import trace

__all__ = [
    "OnnxGraph",
    "check_packages",
    "check_traceable",
    "detect",
    "detect_and_paste",
    "export_onnx",
    "largest_differences",
    "pool_with_torchvision",
    "trace",
]
