"""RegNetX-4GF and RegNetY-4GF (the "dds" models of arXiv 2103.06877) from Detectron2's configs."""

from detectron2.model_zoo import get_config
from omegaconf import DictConfig


def regnet_config(kind: str) -> DictConfig:
    """Return Detectron2's Mask R-CNN with RegNetX ("x") or RegNetY ("y").

    Its `train.init_checkpoint` is the address of the ImageNet weights.
    """
    return get_config(f"COCO-InstanceSegmentation/mask_rcnn_regnet{kind}_4gf_dds_fpn_1x.py")


def use_regnet(model: DictConfig, kind: str) -> None:
    """Make RegNetX-4GF ("x") or RegNetY-4GF ("y") the bottom-up network of the FPN of `model`.

    It takes BGR images.
    """
    theirs = regnet_config(kind).model
    model.backbone.bottom_up = theirs.backbone.bottom_up
    model.backbone.in_features = theirs.backbone.in_features
    for key in ("pixel_mean", "pixel_std", "input_format"):
        model[key] = theirs[key]
