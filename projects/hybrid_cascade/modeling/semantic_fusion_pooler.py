"""RoI features with semantic context: P(x, r) + P(S(x), r) (HTC, arXiv 1901.07518, Eq. 5)."""

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import nn
from torch.nn import functional as F


class SemanticFusionPooler(nn.Module):
    """Has the call signature of `ROIPooler`, with the semantic map as the last feature map."""

    def __init__(self, pooler: ROIPooler, semantic_pooler: ROIPooler):
        """
        Args:
            pooler: pools the levels of the pyramid.
            semantic_pooler: pools the semantic map. Where its output is larger than `pooler`'s, it
                is average-pooled to that size (14x14 to 7x7 for the box branch, as published).
        """
        super().__init__()
        self.pooler = pooler
        self.semantic_pooler = semantic_pooler

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """
        Args:
            x: the pyramid's maps, then the semantic map with the same number of channels C.
            box_lists: one `Boxes` for each image, R boxes in all.

        Returns:
            (R, C, output size, output size) sums of pyramid and semantic features.
        """
        features = self.pooler(x[:-1], box_lists)
        semantic = self.semantic_pooler(x[-1:], box_lists)
        return features + F.adaptive_avg_pool2d(semantic, features.shape[-2:])
