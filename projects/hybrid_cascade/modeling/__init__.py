from .htc import HTCROIHeads
from .semantic_branch import SEMANTIC_BRANCH_REGISTRY, build_semantic_branch
from .semantic_context_head import SemanticContextHead
from .semantic_fusion_pooler import SemanticFusionPooler
from .semantic_rcnn import SemanticRCNN, check_semantic_features
from .semantic_targets import SemanticTargets
from .ssd import SSD, DefaultBoxes
from .ssd_vgg import SSDVGG16

__all__ = [
    "DefaultBoxes",
    "HTCROIHeads",
    "SEMANTIC_BRANCH_REGISTRY",
    "SSD",
    "SSDVGG16",
    "SemanticContextHead",
    "SemanticFusionPooler",
    "SemanticRCNN",
    "SemanticTargets",
    "build_semantic_branch",
    "check_semantic_features",
]
