"""MMDetection 2.x and 3.x: HTC, Cascade Mask R-CNN and Mask R-CNN on a feature pyramid.

Also projects that are based on it, such as the Swin Transformer's object detection.
"""

import re
from collections.abc import Mapping

import torch

from .conversion import Layout, Source
from .mmdet_backbones import (
    backbone_names,
    check_res2net,
    refuse_missing_parts,
    reorder_patch_merging,
)
from .preprocessing import MSRA, TORCHVISION

_HEADS = {
    "fc_cls": "box_predictor{stage}.cls_score",
    "fc_reg": "box_predictor{stage}.bbox_pred",
    "shared_convs": "box_head{stage}.conv{number}",
    "shared_fcs": "box_head{stage}.fc{number}",
    "convs": "mask_head{stage}.mask_fcn{number}",
    "upsample": "mask_head{stage}.deconv",
    "conv_logits": "mask_head{stage}.predictor",
    "conv_res": "mask_information_flow.{before}",
}
_RPN = {"rpn_conv": "conv", "rpn_cls": "objectness_logits", "rpn_reg": "anchor_deltas"}
_SEMANTIC = {
    "lateral_convs": "lateral_convs.p{level}",
    "convs": "convs.{index}",
    "conv_embedding": "embedding",
    "conv_logits": "predictor",
}
# MMDetection's last stage multiplies its box deltas by 0.033 and 0.067, where Detectron2 divides by
# 30 and 15. These are the inverses of MMDetection's numbers.
LAST_STAGE_WEIGHTS = "[30.30303,30.30303,14.925373,14.925373]"


def _rename(name: str, layout: Layout) -> list[str]:
    if name.startswith("backbone."):
        return backbone_names(name.removeprefix("backbone."), layout)
    # mmcv's ConvModule contains "conv", the convolution, and "bn" or "gn". Detectron2's Conv2d is
    # the convolution itself and contains "norm".
    name = re.sub(r"\.conv\.(\w+)$", r".\1", name)
    name = re.sub(r"\.[bg]n\.(\w+)$", r".norm.\1", name)
    if match := re.fullmatch(r"neck\.(lateral|fpn)_convs\.(\d)\.(.+)", name):
        kind = "lateral" if match[1] == "lateral" else "output"
        return [f"backbone.fpn_{kind}{int(match[2]) + 2}.{match[3]}"]
    if match := re.fullmatch(r"neck\.reduction_conv\.(.+)", name):
        return [f"backbone.reduction_conv.{match[1]}"]
    if match := re.fullmatch(r"rpn_head\.(\w+)\.(\w+)", name):
        layer = _RPN.get(match[1])
        return [f"proposal_generator.rpn_head.{layer}.{match[2]}"] if layer else []
    if match := re.fullmatch(r"roi_head\.semantic_head\.(\w+?)(?:\.(\d))?\.(\D.*)", name):
        module, index = _SEMANTIC.get(match[1]), int(match[2] or 0)
        if module is None:
            return []
        return [f"semantic_branch.{module.format(index=index, level=index + 2)}.{match[3]}"]
    pattern = r"roi_head\.(?:bbox|mask)_head(?:\.(\d))?\.([a-z]\w*?)(?:\.(\d))?\.(\D.*)"
    if match := re.fullmatch(pattern, name):
        stage, module = match[1], match[2]
        # In files of 2.x the first stage has this convolution too, but it is never used.
        if module not in _HEADS or (module == "conv_res" and stage == "0"):
            return []
        new_name = _HEADS[module].format(
            stage=f".{stage}" if stage else "",
            before=int(stage or 0) - 1,
            number=int(match[3] or 0) + 1,
        )
        return [f"roi_heads.{new_name}.{match[4]}"]
    return []


def _refuse(state_dict: Mapping[str, torch.Tensor]) -> None:
    if any(name.startswith(("bbox_head.", "mask_head.")) for name in state_dict):
        raise ValueError(
            "This is a single-stage detector or a file of MMDetection 1.x: its heads are not under "
            "'roi_head.'. In 1.x the background is class 0 and RoIAlign and boxes are half a pixel "
            "off, so that its weights do not give the same numbers here. MMDetection 2.x has "
            "tools/model_converters/upgrade_model_version.py; convert its output."
        )


def _adapt(
    state_dict: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    refuse_missing_parts(state_dict, target)
    return reorder_patch_merging(state_dict)


MMDET = Source(
    title="MMDetection",
    rename=_rename,
    left_out={
        r"mask_head\.0\.conv_res": "no mask stage before it; MMDetection does not use it either",
        r"^ema_": "the moving average of the weights, a second set",
    },
    preprocessing=(TORCHVISION, MSRA),
    # MMDetection averages the stages' class logits. Since 3.0, HTC takes the last stage's masks.
    lazy_settings="model.roi_heads.average_logits=True "
    f'"model.roi_heads.box_predictors.2.box2box_transform.weights={LAST_STAGE_WEIGHTS}"'
    "; an HTC also with model.roi_heads.average_masks=False",
    yaml_settings="MODEL.ROI_HTC_HEAD.AVERAGE_LOGITS True "
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS "
    f'"((10,10,5,5),(20,20,10,10),{LAST_STAGE_WEIGHTS})"'
    "; an HTC also with MODEL.ROI_HTC_HEAD.AVERAGE_MASKS False",
    refuse=_refuse,
    adapt=_adapt,
    check=check_res2net,
)
