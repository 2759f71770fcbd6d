"""Defaults of the CfgNode keys that this project adds to Detectron2's."""

from detectron2.config import CfgNode


def add_hybrid_cascade_config(cfg: CfgNode) -> None:
    """Add the keys of this project's models, in place, to a config from `get_cfg()`."""
    # Memory format of the convolutions. None: channels-last on CPUs
    cfg.MODEL.CHANNELS_LAST = None

    # HTCROIHeads. The number of stages, their IoU thresholds and box weights are Detectron2's
    # MODEL.ROI_BOX_CASCADE_HEAD.
    cfg.MODEL.ROI_HTC_HEAD = CfgNode()
    cfg.MODEL.ROI_HTC_HEAD.MASK_STAGES = "all"  # "first", "last" or "all"
    cfg.MODEL.ROI_HTC_HEAD.INTERLEAVED = True
    # Stages after the first match and sample RoIs again, as in MMDetection
    cfg.MODEL.ROI_HTC_HEAD.RESAMPLE_STAGES = False
    cfg.MODEL.ROI_HTC_HEAD.MASK_INFORMATION_FLOW = True
    # "none", "box", "mask", "both"; "auto": both with a semantic branch, none without
    cfg.MODEL.ROI_HTC_HEAD.SEMANTIC_FUSION = "auto"
    cfg.MODEL.ROI_HTC_HEAD.SEMANTIC_IN_FEATURE = "semantic"
    cfg.MODEL.ROI_HTC_HEAD.SEMANTIC_POOLER_RESOLUTION = 14
    cfg.MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS = (1.0, 0.5, 0.25)  # (): 1 for every stage
    # Detectron2's convention: gradients from the box branch into the features, scaled by
    # 1 / number of stages
    cfg.MODEL.ROI_HTC_HEAD.SCALE_BOX_GRADIENTS = False
    cfg.MODEL.ROI_HTC_HEAD.TEST_STAGES = 0  # 0: all
    cfg.MODEL.ROI_HTC_HEAD.AVERAGE_SCORES = True
    cfg.MODEL.ROI_HTC_HEAD.AVERAGE_LOGITS = False
    cfg.MODEL.ROI_HTC_HEAD.AVERAGE_MASKS = True
    cfg.MODEL.ROI_HTC_HEAD.SOFT_NMS = "none"  # "linear" (with NMS_THRESH_TEST) or "gaussian"
    cfg.MODEL.ROI_HTC_HEAD.SOFT_NMS_SIGMA = 0.5
    cfg.MODEL.ROI_HTC_HEAD.SOFT_NMS_SCORE_THRESH = 0.001  # of the decayed scores

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
    cfg.MODEL.SEMANTIC_BRANCH.NORM = ""  # of its convolutions: "SyncBN"
    cfg.MODEL.SEMANTIC_BRANCH.LOSS_WEIGHT = 0.2
    cfg.MODEL.SEMANTIC_BRANCH.LOSS_MEAN = "labelled"  # or "all", as in MMDetection
    cfg.MODEL.SEMANTIC_BRANCH.LABEL_SAMPLING = "center"  # or "corner", as in MMDetection
    cfg.MODEL.SEMANTIC_BRANCH.IGNORE_VALUE = 255
    # Where the label maps come from: "sem_seg", "instances" (painted), "auto"
    cfg.MODEL.SEMANTIC_BRANCH.TARGETS = "auto"
    cfg.MODEL.SEMANTIC_BRANCH.UNLABELLED = "background"  # or "ignore": painted maps' other pixels
    cfg.MODEL.SEMANTIC_BRANCH.THING_LABELS = []  # []: the semantic label is the instance class
    # Merge instances and stuff, with the thresholds of MODEL.PANOPTIC_FPN.COMBINE
    cfg.MODEL.SEMANTIC_BRANCH.OUTPUT_PANOPTIC_SEG = False
    cfg.MODEL.SEMANTIC_BRANCH.STUFF_LABELS = []  # []: those of the first dataset of DATASETS.TRAIN

    # MNCROIHeads. Box heads, their classes and thresholds are Detectron2's MODEL.ROI_BOX_HEAD and
    # MODEL.ROI_HEADS. MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION is the side of the warped features.
    cfg.MODEL.ROI_MNC_HEAD = CfgNode()
    cfg.MODEL.ROI_MNC_HEAD.NUM_STAGES = 5  # 3, 5, 7, ...
    cfg.MODEL.ROI_MNC_HEAD.TEST_STAGES = 0  # 3, 5, 7, ..., also above NUM_STAGES; 0: NUM_STAGES
    # Gradients reach earlier stages through the boxes, in MNCROIHeads and RPNWithBoxGradients
    cfg.MODEL.ROI_MNC_HEAD.END_TO_END = True
    cfg.MODEL.ROI_MNC_HEAD.BOX_GRADIENT_ROIS = "positive"
    cfg.MODEL.ROI_MNC_HEAD.MAX_BOX_GRADIENT = 1 / 512  # 0: no bound
    cfg.MODEL.ROI_MNC_HEAD.WARP_MAX_POOL = 2  # samples along each axis of a cell, max pooled
    cfg.MODEL.ROI_MNC_HEAD.PATHWAY_POOL = 2
    cfg.MODEL.ROI_MNC_HEAD.MASK_FC_DIM = 256
    cfg.MODEL.ROI_MNC_HEAD.MASK_SIDE = 21
    cfg.MODEL.ROI_MNC_HEAD.MASK_LOSS_WEIGHT = 2.0
    cfg.MODEL.ROI_MNC_HEAD.GLOBAL_CONTEXT = False
    cfg.MODEL.ROI_MNC_HEAD.SAMPLING_IOUS = (0.5, 0.1)
    # In place of MODEL.ROI_HEADS.POSITIVE_FRACTION
    cfg.MODEL.ROI_MNC_HEAD.SAMPLING_FRACTIONS = (0.3, 0.5, 0.2)
    cfg.MODEL.ROI_MNC_HEAD.TEST_OUTPUT = "voting"  # or "nms", "boxes"
    cfg.MODEL.ROI_MNC_HEAD.NMS_IOU = 0.3  # of all three, in place of ROI_HEADS.NMS_THRESH_TEST
    cfg.MODEL.ROI_MNC_HEAD.MERGE_IOU = 0.5  # of mask voting, as the next two
    cfg.MODEL.ROI_MNC_HEAD.MASK_THRESHOLD = 0.4
    # Masks vote with pixels that are set or not, rather than with probabilities
    cfg.MODEL.ROI_MNC_HEAD.BINARIZE_BEFORE_VOTING = False

    # build_vgg16_backbone; MODEL.BACKBONE.FREEZE_AT counts its blocks
    cfg.MODEL.VGG = CfgNode()
    cfg.MODEL.VGG.OUT_FEATURES = ["conv5_3"]
    # build_timm_fpn_backbone; MODEL.FPN.IN_FEATURES are res2 to res5
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.NAME = "convnext_tiny"
    cfg.MODEL.TIMM.CHECKPOINT_PATH = ""  # weights of the whole model; "": start fresh
    cfg.MODEL.TIMM.FREEZE_NORM = False
    cfg.MODEL.TIMM.OUT_NORM = ""  # a norm after each feature: "LN" for ConvNeXt
    cfg.MODEL.TIMM.POOL_FIRST_BLOCK = True  # only for Res2Net; False: as in MMDetection

    # SSD. TEST.DETECTIONS_PER_IMAGE is Detectron2's. INPUT.MIN_SIZE_TRAIN and MIN_SIZE_TEST should
    # be 0: the model resizes images itself.
    cfg.MODEL.SSD = CfgNode()
    cfg.MODEL.SSD.IMAGE_SIZE = 300
    cfg.MODEL.SSD.NUM_CLASSES = 80
    # The default boxes of each map: aspect ratios besides 1, side as a fraction of the image's,
    # pixels from one cell to the next
    cfg.MODEL.SSD.ASPECT_RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    cfg.MODEL.SSD.SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    cfg.MODEL.SSD.STEPS = [8, 16, 32, 64, 100, 300]
    cfg.MODEL.SSD.IOU_THRESHOLD = 0.5
    cfg.MODEL.SSD.POSITIVE_FRACTION = 0.25
    cfg.MODEL.SSD.SCORE_THRESH_TEST = 0.01
    cfg.MODEL.SSD.TOPK_CANDIDATES_TEST = 400
    cfg.MODEL.SSD.NMS_THRESH_TEST = 0.45
    cfg.MODEL.SSD.VGG_HIGHRES = False  # SSDVGG16: the layers of SSD512

    # Modules that register datasets: names, or Python files. They are imported, so their code runs.
    cfg.DATASETS.IMPORTS = []

    # Simple Copy-Paste (arXiv 2012.07177) and its large-scale jitter, which replaces
    # INPUT.MIN_SIZE_TRAIN. Evaluation still uses INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST.
    cfg.INPUT.LARGE_SCALE_JITTER = CfgNode()
    cfg.INPUT.LARGE_SCALE_JITTER.ENABLED = False
    cfg.INPUT.LARGE_SCALE_JITTER.IMAGE_SIZE = 1024  # the side of the square
    cfg.INPUT.LARGE_SCALE_JITTER.MIN_SCALE = 0.1
    cfg.INPUT.LARGE_SCALE_JITTER.MAX_SCALE = 2.0
    cfg.INPUT.LARGE_SCALE_JITTER.PAD = False  # smaller images fill the square
    cfg.INPUT.COPY_PASTE = CfgNode()
    cfg.INPUT.COPY_PASTE.ENABLED = False
    cfg.INPUT.COPY_PASTE.PROBABILITY = 1.0
    cfg.INPUT.COPY_PASTE.MAX_INSTANCES = 100  # pasted into an image, at most

    # Before a training or an evaluation: "headers" of the image files, or "decode": all pixels
    cfg.DATALOADER.CHECK_IMAGES = "headers"
    cfg.DATALOADER.DATA_FAULTS = "stop"  # or "warn": faults in annotations and images
    # Files that turn unreadable in a training and are skipped, of each process
    cfg.DATALOADER.MAX_UNREADABLE_IMAGES = 10

    # Modules that are not trained, such as "backbone"; losses to train on, such as "loss_rpn_*"
    cfg.SOLVER.FREEZE = []
    cfg.SOLVER.LOSSES = []  # []: all
    # The metric, such as "segm/AP", of which the best weights are kept; "": none
    cfg.SOLVER.BEST_CHECKPOINT_METRIC = ""
    # Decay of the moving average of the weights, which is evaluated and saved; 0.0: none
    cfg.SOLVER.EMA_DECAY = 0.0
    # Parts in which the images of a batch go through the model (gradient accumulation)
    cfg.SOLVER.MICRO_BATCHES = 1
    # Weights & Biases: where metrics go, too ("": nowhere), and the name of the run
    cfg.WANDB = CfgNode()
    cfg.WANDB.PROJECT = ""
    cfg.WANDB.NAME = ""

    # Of inference and evaluation: "float32", "bfloat16" or "auto" (bfloat16 on CPUs that have
    # instructions for it); whether norms are folded into convolutions, and other layers joined
    cfg.TEST.INFERENCE = CfgNode()
    cfg.TEST.INFERENCE.DTYPE = "float32"
    cfg.TEST.INFERENCE.FUSE_LAYERS = True
    # With --eval-only: more models, which detect together with that of MODEL.WEIGHTS. Each is a
    # file of weights of this config, or a list of a config file, its weights and any overrides.
    # TEST.AUG gives the views of each image.
    cfg.TEST.AUG.MAX_SIZES = ()  # a bound for each of MIN_SIZES, in place of MAX_SIZE
    cfg.TEST.CHECKPOINTS = []
    # How many images of the test dataset are drawn stage by stage after training and evaluation
    cfg.TEST.NUM_PANELS = 6
    # report.html after training and evaluation: how many images it shows, and over how many AP by
    # stage of the cascade is measured (0: none)
    cfg.TEST.REPORT = CfgNode()
    cfg.TEST.REPORT.ENABLED = True
    cfg.TEST.REPORT.IMAGES = 24
    cfg.TEST.REPORT.STAGE_IMAGES = 100
    # Measure the semantic branch too, by the label maps of the test datasets (mIoU)
    cfg.TEST.EVALUATE_SEM_SEG = False
