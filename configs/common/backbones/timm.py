"""Backbones of timm that have the layers of MMDetection's published detectors."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hybrid_cascade.modeling import HRFPN, TimmBackbone

_FEATURES = ["res2", "res3", "res4", "res5"]
# Stochastic depth as in MMDetection's Cascade Mask R-CNN.
_CONVNEXT_SIZES = {"T": ("convnext_tiny", 0.4), "S": ("convnext_small", 0.6)}


def use_convnext(model: DictConfig, size: str) -> None:
    """Make ConvNeXt of a `size`, "T" or "S", the bottom-up network, with a norm for each map."""
    name, drop_path_rate = _CONVNEXT_SIZES[size]
    model.backbone.bottom_up = L(TimmBackbone)(
        name=name, checkpoint_path="", out_norm="LN", drop_path_rate=drop_path_rate
    )
    model.backbone.in_features = _FEATURES


def use_res2net101(model: DictConfig) -> None:
    """Make Res2Net-101 v1d 26w4s the bottom-up network, with frozen batch norms."""
    model.backbone.bottom_up = L(TimmBackbone)(
        name="res2net101d",
        checkpoint_path="",
        freeze_norm=True,
        # As in MMDetection, whose weights need it.
        pool_first_block=False,
    )
    model.backbone.in_features = _FEATURES


def use_hrnet(model: DictConfig, width: int) -> None:
    """Make HRNetV2p the backbone, with frozen batch norms; `width` is 18, 32 or 40."""
    model.backbone = L(HRFPN)(
        bottom_up=L(TimmBackbone)(
            name=f"hrnet_w{width}", checkpoint_path="", freeze_norm=True, feature_location=""
        ),
        in_features=_FEATURES,
        out_channels=model.backbone.out_channels,
    )
