"""The interface of semantic branches, which `SemanticRCNN` runs, and their registry."""

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

SEMANTIC_BRANCH_REGISTRY = Registry("SEMANTIC_BRANCH")
SEMANTIC_BRANCH_REGISTRY.__doc__ = """
Registry of semantic branches. A branch is a module called as

    features, logits, losses = branch(features, targets)

with, for N images and K semantic classes,

- features (dict[str, Tensor]): the maps of the backbone, and of the branch where it is returned.
- targets (Tensor or None): (N, H, W) int64 labels at the size of the padded images, in training.
- logits (Tensor): (N, K, h, w), at the stride of the branch.
- losses (dict[str, Tensor]): empty if `targets` is None.

It has the attributes `num_classes` (K), `ignore_value` (the label that the loss leaves out) and
`in_features` (the names of the maps that it reads), and the method `output_shape()`, which returns
the ShapeSpecs of the maps that it returns. The registered object is called as
`obj(cfg, input_shape)`.
"""


def build_semantic_branch(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the branch that `cfg.MODEL.SEMANTIC_BRANCH.NAME` names, for the given backbone maps."""
    return SEMANTIC_BRANCH_REGISTRY.get(cfg.MODEL.SEMANTIC_BRANCH.NAME)(cfg, input_shape)
