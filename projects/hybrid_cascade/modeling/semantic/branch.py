"""The seam that `SemanticRCNN` adds to Detectron2: what a semantic branch is, how to build it."""

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

SEMANTIC_BRANCH_REGISTRY = Registry("SEMANTIC_BRANCH")
SEMANTIC_BRANCH_REGISTRY.__doc__ = """
Registry of semantic branches. A branch is a module called as

    features, logits, losses = branch(features, targets)

- features (dict[str, Tensor]): the backbone's maps in, the enriched maps out.
- targets (Tensor or None): (N, H, W) class labels at the size of the padded images, in training.
- logits (Tensor): (N, number of semantic classes, h, w), at the branch's own stride.
- losses (dict[str, Tensor]): empty when `targets` is None.

It has `num_classes`, `ignore_value`, `in_features`, the names of the maps that it reads, and
`output_shape()`, the ShapeSpecs of the maps it returns.
The registered object is called as `obj(cfg, input_shape)`.
"""


def build_semantic_branch(cfg, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the branch that `cfg.MODEL.SEMANTIC_BRANCH.NAME` names."""
    return SEMANTIC_BRANCH_REGISTRY.get(cfg.MODEL.SEMANTIC_BRANCH.NAME)(cfg, input_shape)
