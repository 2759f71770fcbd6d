"""Backbones of timm (https://github.com/huggingface/pytorch-image-models).

Shapes: N images of H x W pixels; C channels of a map, whose size depends on its stride.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn


class TimmBackbone(Backbone):
    """The feature maps of a model of timm.

    Names follow the strides, as in Detectron2's ResNet: "res2" has stride 4, "res5" has stride 32.
    The model is the attribute `net`; the norms of the maps are `out_norms`.
    """

    def __init__(
        self,
        name: str,
        *,
        out_indices: Sequence[int] | None = None,
        checkpoint_path: str = "",
        freeze_norm: bool = False,
        out_norm: str = "",
        pool_first_block: bool = True,
        **options,
    ):
        """
        Args:
            name: the name of a model of timm that can return features, such as "convnext_tiny".
            out_indices: the indices of timm's features to return. Layers after the last of them are
                not built. Default: all features.
            checkpoint_path: a file with timm's weights for the whole model.
            freeze_norm: freeze the batch norms, whose statistics suffer from small batches.
            out_norm: a norm of Detectron2's `get_norm` for each feature, which detectors on a
                transformer or a ConvNeXt have: "LN". Default: none.
            pool_first_block: only for Res2Net: whether the first block of res2 averages its last
                group of channels over 3x3 pixels, as in the authors' code. Where MMDetection has
                stride 1, it does not.
            options: options of `timm.create_model`, such as `drop_path_rate=0.2`, or
                `pretrained=True`, which downloads weights.

        Raises:
            ImportError: if timm is not installed.
            ValueError: if timm has no model of this name (the message has similar names), or if
                the strides of the features are equal or no powers of two, or if
                `pool_first_block` is False and the model is no Res2Net.
        """
        super().__init__()
        try:
            import timm
            from timm.layers import freeze_batch_norm_2d
        except ImportError as error:
            raise ImportError(f"The backbone {name!r} needs timm: pip install timm") from error
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=5)
            raise ValueError(
                f"timm {timm.__version__} has no model {name!r}"
                + (f"; near: {', '.join(near)}" if near else "; timm.list_models() lists them")
            )
        if checkpoint_path:
            # timm's own `checkpoint_path` needs the names of the model without its classifier.
            options.update(pretrained=True, pretrained_cfg_overlay={"file": checkpoint_path})
        if out_indices is not None:
            options["out_indices"] = tuple(out_indices)
        self.net = timm.create_model(name, features_only=True, **options)
        if freeze_norm:
            self.net = freeze_batch_norm_2d(self.net)
        if not pool_first_block:
            first = getattr(self.net, "layer1", [None])[0]
            if not hasattr(first, "pool"):
                raise ValueError(f"pool_first_block=False is for Res2Nets; {name} is none")
            first.pool = None
        strides, channels = self.net.feature_info.reduction(), self.net.feature_info.channels()
        levels = [math.log2(stride) for stride in strides]
        if len(set(levels)) < len(levels) or not all(level.is_integer() for level in levels):
            raise ValueError(
                f"The features of {name} have strides {strides}, which is no pyramid. Choose one "
                "with out_indices, e.g. [-1], and put a SimpleFeaturePyramid on it; its stride "
                "must be a power of two."
            )
        self._out_features = [f"res{int(level)}" for level in levels]
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        self.out_norms = nn.ModuleDict(
            {feature: get_norm(out_norm, c) for feature, c in self._out_feature_channels.items()}
            if out_norm
            else {}
        )
        self._channels_last = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return maps (N, C, H / stride, W / stride) by name for images (N, 3, H, W)."""
        maps = self.net(x)
        if self._channels_last:
            maps = [map_.permute(0, 3, 1, 2).contiguous() for map_ in maps]
        maps = dict(zip(self._out_features, maps, strict=True))
        return maps | {feature: norm(maps[feature]) for feature, norm in self.out_norms.items()}


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec, **options: Any) -> TimmBackbone:
    """Build a `TimmBackbone` from MODEL.TIMM, with further options of `timm.create_model`."""
    timm = cfg.MODEL.TIMM
    return TimmBackbone(
        timm.NAME,
        checkpoint_path=timm.CHECKPOINT_PATH,
        freeze_norm=timm.FREEZE_NORM,
        out_norm=timm.OUT_NORM,
        pool_first_block=timm.POOL_FIRST_BLOCK,
        in_chans=input_shape.channels,
        **options,
    )


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Build an FPN on a `TimmBackbone` from MODEL.TIMM and MODEL.FPN."""
    fpn = cfg.MODEL.FPN
    return FPN(
        bottom_up=build_timm_backbone(cfg, input_shape),
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=fpn.FUSE_TYPE,
    )
