"""Semantic Feature Pyramid Network (SFPN; Gan, Xu, Su; ICPR 2020).

Shapes: N images, C channels of the pyramid, (h, w) the size of a level.
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec
from torch import nn

from ...layers.resizing import adaptive_average
from .branch import SEMANTIC_BRANCH_REGISTRY
from .context_head import SemanticContextHead


@SEMANTIC_BRANCH_REGISTRY.register()
class SemanticPyramid(SemanticContextHead):
    """Add the features of a segmentation branch to every level of a feature pyramid.

    1. The segmentation branch is that of HTC, `SemanticContextHead`: one map from all levels,
       supervised with cross entropy.
    2. Its embedding, resized to every level, is the semantic pyramid. It is averaged where the
       level is coarser, and repeated where it is finer, as in FPN's top-down path.
    3. Each semantic level is fused with the pyramid level p of the same stride:
       p + conv3x3(relu(conv1x1([p, semantic level]))).

    The public notes on the paper name these three parts, but neither their layers nor the weight of
    the loss. The 3x3 convolutions of the fusion start at zero, so a network with this branch, with
    trained weights or without, first computes exactly what it does without the branch.
    """

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, output_context_map: bool = False, **kwargs
    ):
        """
        Args:
            input_shape: channels and strides of the backbone's maps.
            output_context_map: also return the embedding, under `out_feature`, so that the same
                branch serves the semantic fusion of `HTCROIHeads`.
            kwargs: the arguments of `SemanticContextHead`. `in_features` are the levels that are
                segmented and fused; the others are returned unchanged. `loss_weight` is the paper's
                alpha.

        Raises:
            ValueError: as `SemanticContextHead`.
        """
        # By keyword: Detectron2 takes a DictConfig as first positional argument for a config.
        super().__init__(input_shape=input_shape, **kwargs)
        self.output_context_map = output_context_map
        if not output_context_map:
            self._output_shape = dict(input_shape)
        self.fusion_convs = nn.ModuleDict()
        for name in self.in_features:
            channels = input_shape[name].channels
            reduce = Conv2d(2 * channels, channels, kernel_size=1, activation=nn.ReLU())
            output = Conv2d(channels, channels, kernel_size=3, padding=1)
            weight_init.c2_msra_fill(reduce)
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)
            self.fusion_convs[name] = nn.Sequential(reduce, output)

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {
            **super().from_config(cfg, input_shape),
            "output_context_map": cfg.MODEL.SEMANTIC_BRANCH.OUTPUT_CONTEXT_MAP,
        }

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Fuse the levels of the pyramid with the semantic pyramid.

        Args:
            features: maps (N, C, h, w) by name.
            targets: see `SemanticContextHead.forward`.

        Returns:
            The maps, those of `in_features` replaced by fused ones of the same shape, and the
            embedding if `output_context_map` is set; logits and losses of `SemanticContextHead`.
        """
        features, logits, losses = super().forward(features, targets)
        embedding = features[self.out_feature]
        if not self.output_context_map:
            features.pop(self.out_feature)
        for name, fusion_conv in self.fusion_convs.items():
            level = features[name]
            semantic_level = adaptive_average(embedding, level.shape[-2:])
            features[name] = level + fusion_conv(torch.cat([level, semantic_level], dim=1))
        return features, logits, losses
