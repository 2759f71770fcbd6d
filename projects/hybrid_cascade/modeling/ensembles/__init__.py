"""Detect with several views of an image and several models together."""

from .averaging import RCNNEnsemble
from .views import RCNNWithTestTimeAugmentation
from .voting import VotingEnsemble

__all__ = ["RCNNEnsemble", "RCNNWithTestTimeAugmentation", "VotingEnsemble"]
