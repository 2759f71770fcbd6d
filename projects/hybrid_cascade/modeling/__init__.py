"""Models: a room for each, and what they share."""

from .backbones import HRFPN, SSDVGG16, VGG16, ZF, SeparateBackbones, TimmBackbone
from .cascade import HTCROIHeads
from .ensembles import RCNNEnsemble, RCNNWithTestTimeAugmentation, VotingEnsemble
from .float32_layers import Float32Layer, with_float32_outputs
from .fused_layers import OneDNNLinear, fuse_layers
from .mnc import (
    ImageMasks,
    MNCMaskHead,
    MNCOutputLayers,
    MNCROIHeads,
    Res5Head,
    RPNWithBoxGradients,
)
from .poolers import FusedROIPooler, ROIWarpPooler
from .semantic import (
    SEMANTIC_BRANCH_REGISTRY,
    SemanticContextHead,
    SemanticPyramid,
    SemanticRCNN,
    SemanticTargets,
    build_semantic_branch,
    check_semantic_features,
    merge_instances_and_stuff,
)
from .ssd import SSD, DefaultBoxes

__all__ = [
    "DefaultBoxes",
    "Float32Layer",
    "FusedROIPooler",
    "HRFPN",
    "HTCROIHeads",
    "ImageMasks",
    "MNCMaskHead",
    "MNCOutputLayers",
    "MNCROIHeads",
    "OneDNNLinear",
    "RCNNEnsemble",
    "RCNNWithTestTimeAugmentation",
    "ROIWarpPooler",
    "RPNWithBoxGradients",
    "Res5Head",
    "SEMANTIC_BRANCH_REGISTRY",
    "SSD",
    "SSDVGG16",
    "SemanticContextHead",
    "SemanticPyramid",
    "SemanticRCNN",
    "SemanticTargets",
    "SeparateBackbones",
    "TimmBackbone",
    "VGG16",
    "VotingEnsemble",
    "ZF",
    "build_semantic_branch",
    "check_semantic_features",
    "fuse_layers",
    "merge_instances_and_stuff",
    "with_float32_outputs",
]
