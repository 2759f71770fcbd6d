"""MViTv2 (arXiv 2112.01526) with a feature pyramid."""

from functools import partial

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.modeling import MViT
from omegaconf import DictConfig
from torch import nn

_SIZES = {
    "T": dict(depth=10, last_block_indexes=[0, 2, 7, 9], drop_path_rate=0.2),
    "S": dict(depth=16, last_block_indexes=[0, 2, 13, 15], drop_path_rate=0.3),
    "B": dict(depth=24, last_block_indexes=[1, 4, 20, 23], drop_path_rate=0.4),
}


def use_mvitv2(model: DictConfig, size: str) -> None:
    """Make MViTv2 of a `size`, "T", "S" or "B", the bottom-up network of the FPN of `model`."""
    features = ["scale2", "scale3", "scale4", "scale5"]
    model.backbone.bottom_up = L(MViT)(
        embed_dim=96,
        num_heads=1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        out_features=features,
        **_SIZES[size],
    )
    model.backbone.in_features = features


def mvitv2_weights(size: str) -> str:
    """Return the address of the weights for ImageNet-1K, which Detectron2 downloads."""
    return f"detectron2://ImageNetPretrained/mvitv2/MViTv2_{size}_in1k.pyth"


def mvitv2_optimizer() -> DictConfig:
    """Return AdamW as in Detectron2's MViTv2: learning rate 1.6e-4 for 64 images a step.

    Position embeddings have no weight decay.
    """
    optimizer = get_config("common/optim.py").AdamW
    optimizer.lr = 1.6e-4
    optimizer.params.overrides = {
        name: {"weight_decay": 0.0} for name in ("pos_embed", "rel_pos_h", "rel_pos_w")
    }
    return optimizer
