"""Defaults of the CfgNode keys that this project adds to Detectron2's."""

from detectron2.config import CfgNode


def add_hybrid_cascade_config(cfg: CfgNode) -> None:
    """Add the keys of `HTCROIHeads` and `SemanticRCNN`, in place, to a config from `get_cfg()`."""
    # HTCROIHeads. The number of stages, their IoU thresholds and box weights are Detectron2's
    # MODEL.ROI_BOX_CASCADE_HEAD.
    cfg.MODEL.ROI_HTC_HEAD = CfgNode()
    cfg.MODEL.ROI_HTC_HEAD.MASK_STAGES = "all"  # "first", "last" or "all"
    cfg.MODEL.ROI_HTC_HEAD.INTERLEAVED = True
    cfg.MODEL.ROI_HTC_HEAD.MASK_INFORMATION_FLOW = True
    # "none", "box", "mask", "both"; "auto": both with a semantic branch, none without
    cfg.MODEL.ROI_HTC_HEAD.SEMANTIC_FUSION = "auto"
    cfg.MODEL.ROI_HTC_HEAD.SEMANTIC_IN_FEATURE = "semantic"
    cfg.MODEL.ROI_HTC_HEAD.SEMANTIC_POOLER_RESOLUTION = 14
    # (): Detectron2's convention, all weights 1 and box gradients scaled by 1 / number of stages
    cfg.MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS = (1.0, 0.5, 0.25)
    cfg.MODEL.ROI_HTC_HEAD.TEST_STAGES = 0  # 0: all
    cfg.MODEL.ROI_HTC_HEAD.AVERAGE_SCORES = True
    cfg.MODEL.ROI_HTC_HEAD.AVERAGE_LOGITS = False
    cfg.MODEL.ROI_HTC_HEAD.AVERAGE_MASKS = True

    # SemanticRCNN and its branch
    cfg.MODEL.SEMANTIC_BRANCH = CfgNode()
    cfg.MODEL.SEMANTIC_BRANCH.NAME = "SemanticContextHead"  # or "SemanticPyramid"
    # SemanticPyramid: whether HTCROIHeads can fuse its context map too
    cfg.MODEL.SEMANTIC_BRANCH.OUTPUT_CONTEXT_MAP = False
    cfg.MODEL.SEMANTIC_BRANCH.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.SEMANTIC_BRANCH.FUSION_FEATURE = "p3"
    # 0: MODEL.ROI_HEADS.NUM_CLASSES + 1, as painted targets need; 183 for COCO-Stuff
    cfg.MODEL.SEMANTIC_BRANCH.NUM_CLASSES = 0
    cfg.MODEL.SEMANTIC_BRANCH.CONV_DIM = 256
    cfg.MODEL.SEMANTIC_BRANCH.NUM_CONVS = 4
    cfg.MODEL.SEMANTIC_BRANCH.LOSS_WEIGHT = 0.2
    cfg.MODEL.SEMANTIC_BRANCH.IGNORE_VALUE = 255
    # Where the label maps come from: "sem_seg", "instances" (painted), "auto"
    cfg.MODEL.SEMANTIC_BRANCH.TARGETS = "auto"
    cfg.MODEL.SEMANTIC_BRANCH.UNLABELLED = "background"  # or "ignore": painted maps' other pixels
    cfg.MODEL.SEMANTIC_BRANCH.THING_LABELS = []  # []: the semantic label is the instance class

    # Images of the test set drawn stage by stage after training and evaluation
    cfg.TEST.NUM_PANELS = 6
