"""From weights to results: give a trained model images, and get objects."""

from .class_names import find_class_names
from .inputs import InputImage, as_model_input, read_inputs
from .jobs import Item, list_items
from .predictor import Predictor
from .result import Result
from .run import FORMATS, PredictionRun
from .writers import Category

__all__ = [
    "FORMATS",
    "Category",
    "InputImage",
    "Item",
    "PredictionRun",
    "Predictor",
    "Result",
    "as_model_input",
    "find_class_names",
    "list_items",
    "read_inputs",
]
