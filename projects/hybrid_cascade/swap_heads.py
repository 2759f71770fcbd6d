"""Turn the `model` of an existing LazyConfig into HTC, SFPN or MNC, in one or two lines.

    use_htc_heads(model)        # the cascade of boxes and masks, without the semantic branch
    use_semantic_branch(model)  # and all of HTC

    use_semantic_pyramid(model) # SFPN: Faster, Mask, Cascade R-CNN or HTC on a semantic pyramid

    use_mnc_heads(model)        # MNC

In a CfgNode (YAML), MODEL.ROI_HEADS.NAME "HTCROIHeads" and MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
True do what the first line does, and MODEL.META_ARCHITECTURE "SemanticRCNN" what the second does.
SFPN needs the latter and MODEL.SEMANTIC_BRANCH.NAME "SemanticPyramid". docs/mnc.md has the keys of
MNC.
"""

import inspect
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from .modeling import (
    HTCROIHeads,
    MNCMaskHead,
    MNCOutputLayers,
    MNCROIHeads,
    Res5Head,
    ROIWarpPooler,
    RPNWithBoxGradients,
    SemanticContextHead,
    SemanticPyramid,
    SemanticRCNN,
    SemanticTargets,
)
from .modeling.mnc import joined_pathways


def use_htc_heads(
    model: DictConfig,
    ious: tuple[float, ...] = (0.5, 0.6, 0.7),
    bbox_reg_weights: tuple[tuple[float, ...], ...] = (
        (10, 10, 5, 5),
        (20, 20, 10, 10),
        (30, 30, 15, 15),
    ),
) -> None:
    """Replace `model.roi_heads` by `HTCROIHeads`, in place; all stages get the heads of the model.

    The layers of the box and mask heads stay what the config says. Later stages refer to the first
    by interpolation: an override of any argument of `box_heads.0`, `box_predictors.0`,
    `mask_heads.0` or `proposal_matchers.0` changes all. IoU thresholds and box regression weights
    belong to one stage each.

    Args:
        model: the config of a `GeneralizedRCNN` with `StandardROIHeads` (Faster and Mask R-CNN) or
            `CascadeROIHeads`. The latter keep their stages, and the other arguments are not used;
            later stages refer to the first where they have the same values.
        ious: the IoU threshold of each of the T stages.
        bbox_reg_weights: the box regression weights of each of the T stages.

    Raises:
        ValueError: for other ROI heads, or `ious` and weights of different lengths.
    """
    heads = model.roi_heads
    if "box_heads" not in heads:
        if "box_head" not in heads:
            raise ValueError(
                f"use_htc_heads replaces StandardROIHeads or CascadeROIHeads, not {heads._target_}"
            )
        if len(ious) != len(bbox_reg_weights):
            raise ValueError(f"{len(ious)} ious, but {len(bbox_reg_weights)} bbox_reg_weights")
        box_head, predictor = heads.pop("box_head"), heads.pop("box_predictor")
        heads.pop("proposal_matcher")
        predictor.num_classes = "${...num_classes}"
        predictor.cls_agnostic_bbox_reg = True
        heads.box_heads = [deepcopy(box_head) for _ in ious]
        heads.box_predictors = [deepcopy(predictor) for _ in ious]
        for of_stage, weights in zip(heads.box_predictors, bbox_reg_weights, strict=True):
            of_stage.box2box_transform = L(Box2BoxTransform)(weights=weights)
        heads.proposal_matchers = [
            L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False)
            for iou in ious
        ]
    if "mask_head" in heads:
        mask_head = heads.pop("mask_head")
        mask_head.num_classes = "${...num_classes}"
        heads.mask_heads = [deepcopy(mask_head) for _ in heads.box_heads]
        _share(heads.mask_heads)
    _share(heads.box_heads)
    _share(heads.proposal_matchers, own="thresholds")
    _share(heads.box_predictors, own="box2box_transform")
    transforms = [predictor.box2box_transform for predictor in heads.box_predictors]
    _share(transforms, own="weights", first="${...0.box2box_transform.")
    heads.update(
        _target_=HTCROIHeads,
        mask_stages="all",
        interleaved=True,
        mask_information_flow=True,
        semantic_fusion="none",
        stage_loss_weights=[0.5**stage for stage in range(len(heads.box_heads))],
    )


def use_semantic_branch(model: DictConfig, num_classes: int | None = None, **targets) -> None:
    """Make `model` a `SemanticRCNN` with a `SemanticContextHead`, in place.

    If the model has `HTCROIHeads`, both their box and their mask branches pool from it.

    Args:
        model: the config of a `GeneralizedRCNN` on a feature pyramid p2 to p6.
        num_classes: number of semantic classes, 183 for COCO-Stuff. None: one more than instance
            classes, for label maps that are painted from instances.
        targets: arguments of `SemanticTargets`, such as `source` and `unlabelled`.
    """
    _set_semantic_branch(model, SemanticContextHead, num_classes, targets)
    if model.roi_heads._target_ is HTCROIHeads:
        model.roi_heads.semantic_fusion = "both"
        model.roi_heads.semantic_pooler = L(ROIPooler)(
            output_size=14, scales=(1.0 / 8,), sampling_ratio=0, pooler_type="ROIAlignV2"
        )


def use_semantic_pyramid(model: DictConfig, num_classes: int | None = None, **targets) -> None:
    """Make `model` a `SemanticRCNN` with a `SemanticPyramid` (SFPN), in place.

    The RoI heads stay as they are. After `use_semantic_branch`, the pyramid replaces the branch,
    and `HTCROIHeads` pool from the pyramid: one segmentation head serves both.

    Args:
        model: the config of a `GeneralizedRCNN` on a feature pyramid p2 to p6.
        num_classes, targets: as in `use_semantic_branch`.
    """
    _set_semantic_branch(model, SemanticPyramid, num_classes, targets)
    fusion = model.roi_heads.get("semantic_fusion", "none")
    model.semantic_branch.output_context_map = fusion != "none"


def _set_semantic_branch(
    model: DictConfig, branch: type[SemanticContextHead], num_classes: int | None, targets: dict
) -> None:
    num_things = model.roi_heads.num_classes
    input_shape = {
        f"p{level}": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=2**level)
        for level in range(2, 7)
    }
    model.update(
        _target_=SemanticRCNN,
        semantic_branch=L(branch)(
            input_shape=input_shape,
            in_features=[*input_shape],
            fusion_feature="p3",
            num_classes=num_things + 1 if num_classes is None else num_classes,
            conv_dim=256,
            num_convs=4,
            loss_weight=0.2,
            ignore_value=255,
        ),
        semantic_targets=L(SemanticTargets)(
            num_classes="${..semantic_branch.num_classes}",
            num_things="${..roi_heads.num_classes}",
            ignore_value="${..semantic_branch.ignore_value}",
            **{"source": "auto", "unlabelled": "background", **targets},
        ),
    )


def use_mnc_heads(model: DictConfig, num_stages: int = 5) -> None:
    """Replace `model.roi_heads` by `MNCROIHeads` and the RPN by `RPNWithBoxGradients`, in place.

    Both pathways get the layers of the model's box head, each with its own weights. The box
    predictor gets the two classifiers and a score threshold of 0.001, and is otherwise kept.

    Args:
        model: the config of a `GeneralizedRCNN` with `StandardROIHeads` (Faster and Mask R-CNN),
            whose box head has fully connected layers, or `Res5ROIHeads`.
        num_stages: number of stages: 3, 5, 7, ...

    Raises:
        ValueError: for other ROI heads.
    """
    heads = model.roi_heads
    if "box_head" in heads:
        channels, side = heads.box_head.input_shape.channels, heads.box_head.input_shape.height
        in_features, scales = heads.box_in_features, heads.box_pooler.scales
        head, num_features, pathway_pool = heads.box_head, heads.box_head.fc_dims[-1], 2
    elif "res5" in heads:
        channels, side = heads.res5.in_channels, heads.pooler.output_size
        in_features, scales = heads.in_features, heads.pooler.scales
        num_features, pathway_pool = heads.res5.out_channels, 1
        head = L(Res5Head)(
            input_shape=ShapeSpec(channels=channels, height=side, width=side),
            bottleneck_channels=heads.res5.bottleneck_channels,
            norm=heads.res5.norm,
            stride_in_1x1=heads.res5.stride_in_1x1,
        )
    else:
        raise ValueError(
            f"use_mnc_heads replaces StandardROIHeads or Res5ROIHeads, not {heads._target_}"
        )
    side *= pathway_pool
    predictor = heads.box_predictor
    model.proposal_generator.update(
        _target_=RPNWithBoxGradients,
        box_gradients="${..roi_heads.end_to_end}",
        max_box_gradient="${..roi_heads.max_box_gradient}",
    )
    predictor.update(
        _target_=MNCOutputLayers,
        input_shape=L(joined_pathways)(
            pathway_channels=num_features, global_context="${...global_context}"
        ),
        num_classes="${..num_classes}",
        test_score_thresh=1e-3,
    )
    model.roi_heads = L(MNCROIHeads)(
        num_classes=heads.num_classes,
        batch_size_per_image=64,
        proposal_matcher=heads.proposal_matcher,
        in_features=in_features,
        pooler=L(ROIWarpPooler)(output_size=2 * side, scales=scales, max_pool=2),
        mask_head=L(MNCMaskHead)(
            input_shape=ShapeSpec(channels=channels, height=side, width=side), mask_side=21
        ),
        masked_head=head,
        box_head=deepcopy(head),
        predictor=predictor,
        num_stages=num_stages,
        end_to_end=True,
        max_box_gradient=1 / 512,
        pathway_pool=pathway_pool,
        global_context=False,
    )


def _share(stages: Sequence[DictConfig], own: str | None = None, first: str = "${..0.") -> None:
    """Let later stages take their arguments from the first, in place, unless theirs differ.

    Arguments that the configs do not name get their default values first, so that an override of
    them at the first stage reaches all, too.

    Args:
        stages: the config of a part of each stage.
        own: the argument that each stage has for itself.
        first: how an argument of a later stage refers to the first stage, up to its name.
    """
    for stage in stages:
        for name, default in _defaults_of(stage._target_).items():
            stage.setdefault(name, default)
    shared = OmegaConf.to_container(stages[0], resolve=False)
    for stage in stages[1:]:
        for name, value in OmegaConf.to_container(stage, resolve=False).items():
            if name not in ("_target_", own) and name in shared and value == shared[name]:
                stage[name] = first + name + "}"


def _defaults_of(target: Callable | str) -> dict[str, Any]:
    """Return the optional arguments of a class, and of its bases as far as it passes arguments on,
    with their default values."""
    if isinstance(target, str):
        target = locate(target)
    functions = [target]
    if inspect.isclass(target):
        functions = [cls.__init__ for cls in inspect.getmro(target)]
    defaults = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                defaults.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return defaults
