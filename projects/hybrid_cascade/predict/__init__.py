"""From weights to results: give a trained model images, and get objects."""

from .inputs import InputImage, read_inputs
from .predictor import Predictor
from .result import Result

__all__ = ["InputImage", "Predictor", "Result", "read_inputs"]
