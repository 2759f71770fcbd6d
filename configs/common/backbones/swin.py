"""Swin Transformers (arXiv 2103.14030) with a feature pyramid."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.modeling import SwinTransformer
from omegaconf import DictConfig

# Stochastic depth (`drop_path_rate`) as in Swin's Cascade Mask R-CNN; for L as the authors advise.
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
    """Make Swin of a `size`, "T", "S", "B" or "L", the bottom-up network of the FPN of `model`."""
    model.backbone.bottom_up = L(SwinTransformer)(**_SIZES[size])
    model.backbone.in_features = ["p0", "p1", "p2", "p3"]


def swin_weights(size: str, imagenet_22k: bool = True) -> str:
    """Return the address of the authors' weights: ImageNet-1K for T and S, 22K for B and L.

    With `imagenet_22k=False`, those of B are for ImageNet-1K too. There are none for L.
    """
    name = _WEIGHTS[size] if imagenet_22k else _WEIGHTS[size].removesuffix("_22k")
    return f"{_RELEASE}/{name}.pth?matching_heuristics=True"


def swin_optimizer() -> DictConfig:
    """Return AdamW as in the paper: learning rate 1e-4 for 16 images a step, weight decay 0.05.

    Norms, relative position biases and absolute position embeddings have no weight decay.
    """
    optimizer = get_config("common/optim.py").AdamW
    optimizer.lr = 1e-4
    optimizer.weight_decay = 0.05
    optimizer.params.overrides = {
        "relative_position_bias_table": {"weight_decay": 0.0},
        "absolute_pos_embed": {"weight_decay": 0.0},
    }
    return optimizer
