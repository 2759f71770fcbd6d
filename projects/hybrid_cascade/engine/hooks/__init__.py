"""Hooks of a training."""

from .finite import CheckLosses, CheckWeights
from .results import DrawResults
from .seed import SeedEachIteration
from .signals import StopOnSignal, StoppedBySignal, StopSignals

__all__ = [
    "CheckLosses",
    "CheckWeights",
    "DrawResults",
    "SeedEachIteration",
    "StopOnSignal",
    "StopSignals",
    "StoppedBySignal",
]
