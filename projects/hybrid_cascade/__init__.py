"""HTC, MNC, Cascade Mask R-CNN, SFPN and SSD as an add-on to Detectron2.

Importing this package registers its models and datasets with Detectron2.
"""

from .spinning import shorten_spinning

try:
    shorten_spinning()  # before Detectron2 imports torch
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "hybrid_cascade needs Detectron2. Install it with: pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2.git'"
    ) from error

from . import data, modeling  # noqa: F401
from .config import add_hybrid_cascade_config
from .moved_names import keep_old_names
from .swap_heads import use_htc_heads, use_mnc_heads, use_semantic_branch, use_semantic_pyramid
from .version import __version__

keep_old_names()


def __getattr__(name: str):
    if name == "Predictor":  # imported when it is asked for, because it needs most of the package
        from .predict import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Predictor",
    "__version__",
    "add_hybrid_cascade_config",
    "use_htc_heads",
    "use_mnc_heads",
    "use_semantic_branch",
    "use_semantic_pyramid",
]
