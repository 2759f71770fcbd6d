"""Larger box heads: four convolutions and one fully connected layer ("4conv1fc")."""

from omegaconf import DictConfig


def use_4conv1fc_box_heads(model: DictConfig, norm: str) -> None:
    """Give all stages of a cascade such box heads; `norm` follows each of their convolutions."""
    heads = model.roi_heads.box_heads  # all take the first one's values, but not its new keys
    heads[0].conv_dims = [256] * 4
    heads[0].fc_dims = [1024]
    for head in heads:
        head.conv_norm = norm
