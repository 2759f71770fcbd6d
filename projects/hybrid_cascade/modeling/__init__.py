from .backbones import VGG16, ZF, SeparateBackbones, TimmBackbone
from .fused_roi_pooler import FusedROIPooler
from .htc import HTCROIHeads
from .image_masks import ImageMasks
from .mnc import MNCROIHeads
from .mnc_mask_head import MNCMaskHead
from .mnc_output_layers import MNCOutputLayers
from .panoptic_output import merge_instances_and_stuff
from .rcnn_ensemble import RCNNEnsemble
from .res5_head import Res5Head
from .rpn_with_box_gradients import RPNWithBoxGradients
from .semantic_branch import SEMANTIC_BRANCH_REGISTRY, build_semantic_branch
from .semantic_context_head import SemanticContextHead
from .semantic_pyramid import SemanticPyramid
from .semantic_rcnn import SemanticRCNN, check_semantic_features
from .semantic_targets import SemanticTargets
from .ssd import SSD, DefaultBoxes
from .ssd_vgg import SSDVGG16
from .test_time_augmentation import RCNNWithTestTimeAugmentation
from .voting_ensemble import VotingEnsemble

__all__ = [
    "DefaultBoxes",
    "FusedROIPooler",
    "HTCROIHeads",
    "ImageMasks",
    "MNCMaskHead",
    "MNCOutputLayers",
    "MNCROIHeads",
    "RCNNEnsemble",
    "RCNNWithTestTimeAugmentation",
    "RPNWithBoxGradients",
    "Res5Head",
    "SEMANTIC_BRANCH_REGISTRY",
    "SSD",
    "SSDVGG16",
    "SemanticContextHead",
    "SemanticPyramid",
    "SemanticRCNN",
    "SemanticTargets",
    "VotingEnsemble",
    "SeparateBackbones",
    "TimmBackbone",
    "VGG16",
    "ZF",
    "build_semantic_branch",
    "check_semantic_features",
    "merge_instances_and_stuff",
]
