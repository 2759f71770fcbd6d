from .htc import HTCROIHeads
from .semantic_branch import SEMANTIC_BRANCH_REGISTRY, build_semantic_branch
from .semantic_context_head import SemanticContextHead
from .semantic_fusion_pooler import SemanticFusionPooler
from .semantic_pyramid import SemanticPyramid
from .semantic_rcnn import SemanticRCNN, check_semantic_features
from .semantic_targets import SemanticTargets

__all__ = [
    "HTCROIHeads",
    "SEMANTIC_BRANCH_REGISTRY",
    "SemanticContextHead",
    "SemanticFusionPooler",
    "SemanticPyramid",
    "SemanticRCNN",
    "SemanticTargets",
    "build_semantic_branch",
    "check_semantic_features",
]
