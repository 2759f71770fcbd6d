"""Hooks of a training."""

from .finite import CheckLosses, CheckWeights, NotFiniteError
from .results import DrawResults
from .seed import SeedEachIteration
from .signals import StopOnSignal, StoppedBySignal, StopSignals

__all__ = [
    "CheckLosses",
    "CheckWeights",
    "DrawResults",
    "NotFiniteError",
    "SeedEachIteration",
    "StopOnSignal",
    "StopSignals",
    "StoppedBySignal",
]
