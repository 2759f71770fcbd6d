"""The semantic branches of HTC and SFPN, and `SemanticRCNN`, which runs them."""

from .branch import SEMANTIC_BRANCH_REGISTRY, build_semantic_branch
from .checks import check_semantic_features
from .context_head import SemanticContextHead
from .panoptic import merge_instances_and_stuff
from .pyramid import SemanticPyramid
from .rcnn import SemanticRCNN
from .targets import SemanticTargets

__all__ = [
    "SEMANTIC_BRANCH_REGISTRY",
    "SemanticContextHead",
    "SemanticPyramid",
    "SemanticRCNN",
    "SemanticTargets",
    "build_semantic_branch",
    "check_semantic_features",
    "merge_instances_and_stuff",
]
