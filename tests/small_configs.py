"""The project's configs with few channels and few boxes, for one step on a CPU.

Their structure stays, depth included. SSD stays as it is, since its layers are made for the size of
its images. MNC's VGG-16 and ZF keep their convolutions and have narrower fully connected layers.
"""

from pathlib import Path

from detectron2.config import CfgNode, LazyConfig
from detectron2.modeling import MViT, ResNet, SimpleFeaturePyramid, SwinTransformer
from detectron2.modeling.backbone import RegNet
from detectron2.modeling.roi_heads import StandardROIHeads
from omegaconf import DictConfig

from hybrid_cascade.engine import load_config
from hybrid_cascade.modeling import MNCROIHeads, TimmBackbone

CONFIGS = Path(__file__).parent.parent / "configs"
resnet_stages = LazyConfig.load(str(CONFIGS / "common/backbones/resnet.py"), "resnet_stages")


def load_toy(name: str = "htc_toy") -> DictConfig:
    """Load the model of a quick-start config, for inference with initial weights.

    Its channels are few already. Its batch normalization, with which it trains from scratch, is
    replaced by a frozen one.
    """
    model = LazyConfig.load(str(CONFIGS / "quick_start" / f"{name}.py")).model
    model.backbone.bottom_up.stem.norm = "FrozenBN"
    model.backbone.bottom_up.stages.norm = "FrozenBN"
    model.roi_heads.batch_size_per_image = 16
    if "semantic_branch" in model:
        model.stuff_labels = [5, 6, 7, 8]  # what `build_model` takes from the toy scenes' metadata
    return model


def load_small(path: str, change=lambda model: None) -> DictConfig | CfgNode:
    """Load a config by its path below `configs`, and shrink it.

    `change` gets the model of a LazyConfig before it is shrunk.
    """
    if path.endswith(".yaml"):
        return load_config(str(CONFIGS / path), _yaml_overrides(path))
    cfg = load_config(str(CONFIGS / path), lazy_overrides(path))
    change(cfg.model)
    shrink(cfg.model)
    return cfg


def lazy_overrides(path: str) -> list[str]:
    """Return the overrides without which a LazyConfig can't be loaded."""
    return ["model.roi_heads.num_classes=5"] if path.startswith("own_data/") else []


def _yaml_overrides(path: str) -> list[str]:
    """Return overrides that do what `shrink` does to the LazyConfig of the same name."""
    if "ssd" in path:
        return []
    proposals = "RPN.POST_NMS_TOPK_TRAIN 20 RPN.POST_NMS_TOPK_TEST 10 ROI_BOX_HEAD.FC_DIM 16"
    sizes = f"{proposals} ROI_HEADS.BATCH_SIZE_PER_IMAGE 8"
    if "mnc" in path:
        sizes += " ROI_MNC_HEAD.MASK_FC_DIM 16"
    else:
        resnet = "RESNETS.STEM_OUT_CHANNELS 16 RESNETS.RES2_OUT_CHANNELS 64"
        sizes += f" {resnet} RESNETS.WIDTH_PER_GROUP 16 FPN.OUT_CHANNELS 16"
        sizes += " ROI_MASK_HEAD.CONV_DIM 16 SEMANTIC_BRANCH.CONV_DIM 16"
    return [x if x.isdigit() else f"MODEL.{x}" for x in sizes.split()]


def keep_few_boxes(model: DictConfig) -> None:
    """Let the `model` of a LazyConfig propose and sample few boxes, in place."""
    model.roi_heads.batch_size_per_image = 8
    model.proposal_generator.post_nms_topk = (20, 10)  # training, inference


def shrink(model: DictConfig) -> None:
    """Make the `model` of a LazyConfig small, in place."""
    if "roi_heads" not in model:
        return
    keep_few_boxes(model)
    if not _shrink_backbone(model.backbone):
        return
    heads = model.roi_heads
    if "box_heads" in heads:
        model.backbone.out_channels = 16
        heads.box_heads[0].fc_dims = [16] * len(heads.box_heads[0].fc_dims)
        for head in (heads.box_heads[0], *heads.get("mask_heads", [])[:1]):
            if "conv_dims" in head:
                head.conv_dims = [16] * len(head.conv_dims)
        if "semantic_branch" in model:
            model.semantic_branch.conv_dim = 16
    elif heads._target_ is StandardROIHeads:
        model.backbone.out_channels = model.proposal_generator.head.in_channels = 16
        if "semantic_branch" in model:
            model.semantic_branch.conv_dim = 16
        heads.box_head.fc_dims = [16, 16]
        heads.box_head.input_shape.channels = heads.box_predictor.input_shape.channels = 16
        if "mask_head" in heads:
            heads.mask_head.input_shape.channels = 16
            heads.mask_head.conv_dims = [16] * len(heads.mask_head.conv_dims)
    elif heads._target_ is MNCROIHeads:
        heads.mask_head.fc_dim = 16
        if "fc_dims" in heads.box_head:
            heads.masked_head.fc_dims = heads.box_head.fc_dims = [16, 16]
            heads.predictor.input_shape.pathway_channels = 16


def _shrink_backbone(backbone: DictConfig) -> bool:
    """Give a backbone few channels, in place.

    Returns:
        False if it had few already, as those of the quick start.
    """
    body = backbone.get("bottom_up", backbone)
    if body._target_ is SwinTransformer:
        body.update(embed_dim=12, num_heads=[1, 1, 2, 2])
    elif body._target_ is MViT:
        body.embed_dim = 8
    elif body._target_ is SimpleFeaturePyramid:
        body.net.update(img_size=64, embed_dim=24, num_heads=2, window_size=4)
        body.square_pad = 160
    elif body._target_ is RegNet:
        body.update(stem_width=8, w_0=24, w_a=31.41 / 4, w_m=2.24, group_width=8)
    elif body._target_ is TimmBackbone:
        if body.name.startswith("convnext"):
            body.dims = [8, 16, 32, 64]
        elif body.name.startswith("res2net"):
            body.update(channels=[8, 16, 32, 64], stem_width=4)
        elif body.name.startswith("hrnet"):
            body.name = "hrnet_w18_small"
    elif body._target_ is ResNet and body is not backbone:
        if isinstance(body.stages, DictConfig):
            depth = body.stages.depth
            if depth < 50:
                return False
            options = {k: v for k, v in body.stages.items() if k not in ("_target_", "depth")}
            body.stages = resnet_stages(depth)
            for stage in body.stages:
                stage.update(options)
        body.stem.out_channels //= 4
        for stage in body.stages:
            for channels in ("in_channels", "bottleneck_channels", "out_channels"):
                stage[channels] //= 4
    return True
