"""Keep imports working that were written before the package had its rooms.

Importing `hybrid_cascade` gives names that moved their old places too; see CHANGELOG.md.
"""

import sys

from . import converters, layers, modeling
from .modeling.mnc import mask_voting


def keep_old_names() -> None:
    """Let `hybrid_cascade.layers` and `hybrid_cascade.checkpoint` have what they had."""
    layers.ROIWarpPooler = modeling.ROIWarpPooler
    layers.mask_voting = mask_voting
    sys.modules["hybrid_cascade.checkpoint"] = converters
    sys.modules["hybrid_cascade"].checkpoint = converters
