"""Hooks of a training."""

from .averaged_weights import AverageWeights
from .best import KeepBest
from .finite import CheckLosses, CheckWeights, NotFiniteError
from .results import DrawResults
from .seed import SeedEachIteration
from .signals import StopOnSignal, StoppedBySignal, StopSignals
from .wandb_writer import WandbWriter

__all__ = [
    "AverageWeights",
    "CheckLosses",
    "CheckWeights",
    "DrawResults",
    "KeepBest",
    "NotFiniteError",
    "SeedEachIteration",
    "StopOnSignal",
    "StopSignals",
    "StoppedBySignal",
    "WandbWriter",
]
