from .backbones import VGG16, ZF, SeparateBackbones
from .htc import HTCROIHeads
from .semantic_branch import SEMANTIC_BRANCH_REGISTRY, build_semantic_branch
from .semantic_context_head import SemanticContextHead
from .semantic_fusion_pooler import SemanticFusionPooler
from .semantic_rcnn import SemanticRCNN, check_semantic_features
from .semantic_targets import SemanticTargets

__all__ = [
    "HTCROIHeads",
    "SEMANTIC_BRANCH_REGISTRY",
    "SemanticContextHead",
    "SemanticFusionPooler",
    "SemanticRCNN",
    "SemanticTargets",
    "SeparateBackbones",
    "VGG16",
    "ZF",
    "build_semantic_branch",
    "check_semantic_features",
]
