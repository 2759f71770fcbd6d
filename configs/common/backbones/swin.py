"""Swin Transformers (arXiv 2103.14030) under a feature pyramid."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.modeling import SwinTransformer
from omegaconf import DictConfig

# Stochastic depth as in Swin's Cascade Mask R-CNN; for L as its authors advise.
_SIZES = {
    "T": dict(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], drop_path_rate=0.2),
    "S": dict(embed_dim=96, depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24], drop_path_rate=0.2),
    "B": dict(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], drop_path_rate=0.3),
    "L": dict(embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], drop_path_rate=0.3),
}
_RELEASE = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0"
_WEIGHTS = {
    "T": "swin_tiny_patch4_window7_224",
    "S": "swin_small_patch4_window7_224",
    "B": "swin_base_patch4_window7_224_22k",
    "L": "swin_large_patch4_window7_224_22k",
}


def use_swin(model: DictConfig, size: str) -> None:
    """Put Swin-`size`, of "T", "S", "B" and "L", under the FPN of `model`."""
    model.backbone.bottom_up = L(SwinTransformer)(**_SIZES[size])
    model.backbone.in_features = ["p0", "p1", "p2", "p3"]


def swin_weights(size: str) -> str:
    """Where Swin's authors have them: of ImageNet-1K for T and S, ImageNet-22K for B and L."""
    return f"{_RELEASE}/{_WEIGHTS[size]}.pth?matching_heuristics=True"


def swin_optimizer() -> DictConfig:
    """AdamW as in the paper: 16 images a step, 1e-4, weight decay 0.05.

    Norms, relative position biases and absolute position embeddings do not decay.
    """
    optimizer = get_config("common/optim.py").AdamW
    optimizer.lr = 1e-4
    optimizer.weight_decay = 0.05
    optimizer.params.overrides = {
        "relative_position_bias_table": {"weight_decay": 0.0},
        "absolute_pos_embed": {"weight_decay": 0.0},
    }
    return optimizer
