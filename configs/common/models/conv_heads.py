"""Larger box heads: four convolutions and one fully connected layer ("4conv1fc")."""

from omegaconf import DictConfig


def use_4conv1fc_box_heads(model: DictConfig, norm: str) -> None:
    """Give all stages of a cascade such box heads; `norm` follows each of their convolutions."""
    head = model.roi_heads.box_heads[0]  # all stages take the first one's values
    head.conv_dims = [256] * 4
    head.fc_dims = [1024]
    head.conv_norm = norm
