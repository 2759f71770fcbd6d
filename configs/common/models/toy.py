"""Shrink a model of these configs, so that it learns the toy scenes in minutes on two CPU cores."""

from detectron2.layers import ShapeSpec
from omegaconf import DictConfig

NUM_THINGS, NUM_SEMANTIC_CLASSES, CHANNELS, FC_DIM = 5, 9, 64, 256


def make_toy(model: DictConfig) -> None:
    """Shrink a Faster, Mask or Cascade R-CNN or HTC on ResNet-FPN, and let all of it train."""
    bottom_up = model.backbone.bottom_up
    bottom_up.freeze_at = 0
    bottom_up.stem.norm = bottom_up.stages.norm = "BN"
    bottom_up.stages.depth = 18
    # Detectron2's BasicBlock, unlike its BottleneckBlock, has no such argument.
    bottom_up.stages.pop("stride_in_1x1")
    model.backbone.out_channels = CHANNELS

    rpn = model.proposal_generator
    rpn.head.in_channels = CHANNELS
    rpn.anchor_generator.sizes = [[8], [16], [32], [64], [128]]
    rpn.anchor_boundary_thresh = -1  # few of the largest anchors are inside of such small images
    rpn.pre_nms_topk = (400, 200)
    rpn.post_nms_topk = (200, 100)

    heads = model.roi_heads
    heads.num_classes = NUM_THINGS
    heads.batch_size_per_image = 32
    # One sample a bin is enough for boxes of about ten cells, and sampling takes half of a step.
    heads.box_pooler.sampling_ratio = 1
    is_cascade = "box_heads" in heads
    box_head = heads.box_heads[0] if is_cascade else heads.box_head
    box_head.input_shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
    box_head.fc_dims = [FC_DIM]
    box_predictor = heads.box_predictors[0] if is_cascade else heads.box_predictor
    box_predictor.input_shape = ShapeSpec(channels=FC_DIM)
    if "mask_pooler" in heads:
        mask_head = heads.mask_heads[0] if is_cascade else heads.mask_head
        mask_head.input_shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
        mask_head.conv_dims = [CHANNELS] * 3
    if "semantic_branch" in model:
        model.semantic_branch.num_classes = NUM_SEMANTIC_CLASSES
        model.semantic_branch.conv_dim = CHANNELS
        model.semantic_branch.num_convs = 2
        model.stuff_labels = []  # for panoptic output: those of the dataset to train on
        model.combine_stuff_area_thresh = 64
