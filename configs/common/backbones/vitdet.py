"""ViTDet (arXiv 2203.16527): a plain ViT, a simple feature pyramid, and the heads of the paper."""

from functools import partial

from detectron2.model_zoo import get_config
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from omegaconf import DictConfig

from ..models.conv_heads import use_4conv1fc_box_heads

# Every fourth part of the blocks ends with one that attends to the whole image. All others attend
# to windows.
_SIZES = {
    "B": dict(embed_dim=768, depth=12, num_heads=12, drop_path_rate=0.1),
    "L": dict(embed_dim=1024, depth=24, num_heads=16, drop_path_rate=0.4),
}
_LAYER_DECAY = {"B": 0.7, "L": 0.8}
_WEIGHTS = {"B": "mae_pretrain_vit_base", "L": "mae_pretrain_vit_large"}


def use_vitdet(model: DictConfig, size: str) -> None:
    """Give `model`, a cascade, a ViT of a `size` ("B" or "L") and heads with layer norms.

    The model pads images to squares of 1024 pixels, so they may not be larger: see
    `use_large_scale_jitter`.
    """
    model.backbone = get_config("common/models/mask_rcnn_vitdet.py").model.backbone
    depth = _SIZES[size]["depth"]
    model.backbone.net.update(_SIZES[size])
    model.backbone.net.window_block_indexes = [
        block for block in range(depth) if (block + 1) % (depth // 4) != 0
    ]
    model.proposal_generator.head.conv_dims = [-1, -1]
    use_4conv1fc_box_heads(model, norm="LN")
    for head in model.roi_heads.mask_heads:
        head.conv_norm = "LN"


def vitdet_weights(size: str) -> str:
    """Return the address of MAE's weights for ImageNet-1K, which Detectron2 downloads."""
    folder = "detectron2://ImageNetPretrained/MAE"
    return f"{folder}/{_WEIGHTS[size]}.pth?matching_heuristics=True"


def vitdet_optimizer(size: str) -> DictConfig:
    """Return AdamW as in the paper: 1e-4 for 64 images a step, and less in lower layers."""
    optimizer = get_config("common/optim.py").AdamW
    optimizer.params.lr_factor_func = partial(
        get_vit_lr_decay_rate,
        lr_decay_rate=_LAYER_DECAY[size],
        num_layers=_SIZES[size]["depth"],
    )
    optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
    return optimizer
