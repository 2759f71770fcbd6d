"""The semantic segmentation branch of HTC (arXiv 1901.07518, Section 3.2, "Spatial Contexts").

Shapes: N images, C channels of the pyramid, K semantic classes, (H, W) the size of the padded
images, (h, w) that of the fusion level (stride 8 in the paper).
"""

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import nn
from torch.nn import functional as F

from .branch import SEMANTIC_BRANCH_REGISTRY

INTERPOLATION_OF_SAMPLING = {"center": "nearest-exact", "corner": "nearest"}


@SEMANTIC_BRANCH_REGISTRY.register()
class SemanticContextHead(nn.Module):
    """Fuse all pyramid levels, and predict the class of each pixel and features for RoIs.

    Every level is resized to the fusion level and passed through a 1x1 convolution of its own. The
    sum of the levels passes through 3x3 convolutions (four in the paper). Then one 1x1 convolution
    predicts the classes, and another one makes the embedding S(x) that RoI heads pool from.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        in_features: list[str] = ("p2", "p3", "p4", "p5", "p6"),
        fusion_feature: str = "p3",
        out_feature: str = "semantic",
        conv_dim: int = 256,
        num_convs: int = 4,
        norm: str = "",
        loss_weight: float = 0.2,
        loss_mean: str = "labelled",
        label_sampling: str = "center",
        ignore_value: int = 255,
    ):
        """
        Args:
            input_shape: channels and strides of the backbone's maps. All `in_features` must have
                the same number of channels, C. The embedding has as many, so that RoI heads can add
                it to the features that they pool from the pyramid.
            num_classes: K, semantic classes (183 for COCO-Stuff).
            in_features: the levels to fuse.
            fusion_feature: the level whose size the others are resized to.
            out_feature: the name of the embedding among the feature maps.
            conv_dim: channels inside the branch.
            num_convs: the number of 3x3 convolutions after the fusion.
            norm: a norm of Detectron2's `get_norm`, such as "SyncBN", after each convolution but
                the one that predicts the classes. Default: none.
            loss_weight: the paper's beta; 0.2 in the published configs.
            loss_mean: the cells that the loss is averaged over: "labelled" ones, or "all", as in
                MMDetection, where those to be ignored count as 0.
            label_sampling: the pixel of a cell whose label it gets: its "center", or its upper left
                "corner", as in MMDetection.
            ignore_value: the label that the loss leaves out.

        Raises:
            ValueError: if `fusion_feature` is not one of `in_features`, a level is not in
                `input_shape`, channels differ, or `loss_mean` or `label_sampling` is another word.
        """
        super().__init__()
        if loss_mean not in ("labelled", "all"):
            raise ValueError(f"loss_mean={loss_mean!r} is not 'labelled' or 'all'")
        if label_sampling not in INTERPOLATION_OF_SAMPLING:
            raise ValueError(f"label_sampling={label_sampling!r} is not 'center' or 'corner'")
        if missing := set(in_features) - set(input_shape):
            raise ValueError(
                f"in_features={list(in_features)} of the semantic branch asks for "
                f"{sorted(missing)}; the backbone has {list(input_shape)}"
            )
        if fusion_feature not in in_features:
            raise ValueError(
                f"fusion_feature={fusion_feature!r} is not in in_features={in_features}"
            )
        channels = {input_shape[f].channels for f in in_features}
        if len(channels) != 1:
            raise ValueError(f"The levels {list(in_features)} differ in channels: {channels}")
        (in_channels,) = channels
        self.in_features = list(in_features)
        self.fusion_feature = fusion_feature
        self.out_feature = out_feature
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        self.loss_mean = loss_mean
        self.label_sampling = label_sampling
        self.ignore_value = ignore_value
        self._output_shape = {
            **input_shape,
            out_feature: ShapeSpec(channels=in_channels, stride=input_shape[fusion_feature].stride),
        }

        self.lateral_convs = nn.ModuleDict(
            {f: _conv_relu(in_channels, conv_dim, 1, norm) for f in self.in_features}
        )
        self.convs = nn.Sequential(
            *(_conv_relu(conv_dim, conv_dim, 3, norm) for _ in range(num_convs))
        )
        self.embedding = _conv_relu(conv_dim, in_channels, 1, norm)
        self.predictor = Conv2d(conv_dim, num_classes, kernel_size=1)
        for layer in [*self.lateral_convs.values(), *self.convs, self.embedding]:
            weight_init.c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.constant_(self.predictor.bias, 0)

    @classmethod
    def from_config(cls, cfg, input_shape):
        branch = cfg.MODEL.SEMANTIC_BRANCH
        return {
            "input_shape": input_shape,
            # 0 stands for what painted targets need: the things and one background class.
            "num_classes": branch.NUM_CLASSES or cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1,
            "in_features": branch.IN_FEATURES,
            "fusion_feature": branch.FUSION_FEATURE,
            "conv_dim": branch.CONV_DIM,
            "num_convs": branch.NUM_CONVS,
            "norm": branch.NORM,
            "loss_weight": branch.LOSS_WEIGHT,
            "loss_mean": branch.LOSS_MEAN,
            "label_sampling": branch.LABEL_SAMPLING,
            "ignore_value": branch.IGNORE_VALUE,
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the ShapeSpecs of the backbone's maps and of the embedding."""
        return self._output_shape

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the embedding, the semantic logits and, in training, their loss.

        Args:
            features: maps by name, (N, C, h of the level, w of the level).
            targets: (N, H, W) int64 labels of the padded images in [0, K) or `ignore_value`; None
                at inference.

        Returns:
            The maps with the embedding (N, C, h, w) under `out_feature`; logits (N, K, h, w); and
            {"loss_sem_seg": scalar} in training, {} at inference.
        """
        size = features[self.fusion_feature].shape[-2:]
        fused = 0
        for name, lateral_conv in self.lateral_convs.items():
            x = features[name]
            if name != self.fusion_feature:
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            fused = fused + lateral_conv(x)
        fused = self.convs(fused)
        logits = self.predictor(fused)
        losses = {} if targets is None else {"loss_sem_seg": self.loss(logits, targets)}
        return {**features, self.out_feature: self.embedding(fused)}, logits, losses

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the weighted cross entropy, averaged as `loss_mean` says.

        Labels are sampled at the stride of the logits. If no cell of the batch has a label, the
        loss and its gradients are zero.

        Args:
            logits: (N, K, h, w).
            targets: (N, H, W) int64, see `forward`.
        """
        # Labels up to 2^24 are exact in float32, the only type that interpolate resizes everywhere.
        targets = F.interpolate(
            targets[:, None].float(),
            size=logits.shape[-2:],
            mode=INTERPOLATION_OF_SAMPLING[self.label_sampling],
        )[:, 0].long()
        total = F.cross_entropy(
            logits.float(), targets, ignore_index=self.ignore_value, reduction="sum"
        )
        counted = targets != self.ignore_value
        if self.loss_mean == "all":
            counted = torch.ones_like(counted)
        return self.loss_weight * total / counted.sum().clamp(min=1)


def _conv_relu(in_channels: int, out_channels: int, kernel_size: int, norm: str) -> Conv2d:
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=nn.ReLU(),
    )
