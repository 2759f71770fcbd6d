"""Names of MMDetection's backbones: ResNet and ResNeXt, Swin, ConvNeXt, Res2Net, HRNet.

ResNets and Swin Transformers are Detectron2's, or timm's if the model has a `TimmBackbone`. The
others are timm's.
"""

import re
from collections.abc import Mapping

import torch
from torch import nn

from .layer_names import Layout, resnet_names

# Parts of MMDetection's models and how to recognize them: a name in the file, the name of the same
# parameter in a model that has the part ("" if there is none), what it is, and what to do.
_HRNET = "set the backbone as configs/htc/htc_hrnet_w32_20e.py does"
_PARTS = (
    (
        r"backbone\.(layers|stages)\.\d\.blocks\.",
        r"backbone\.(bottom_up\.)?layers\.\d\.blocks\.",
        "a Swin Transformer",
        "set the backbone as configs/cascade_mask_rcnn/cascade_mask_rcnn_swin_t_fpn_3x.py does",
    ),
    (
        r"backbone\.stages\.\d\.\d+\.depthwise_conv\.",
        r"backbone\.bottom_up\.net\.stages_\d\.blocks\.",
        "a ConvNeXt",
        "set the backbone as configs/cascade_mask_rcnn/cascade_mask_rcnn_convnext_t_fpn_3x.py does",
    ),
    (
        r"backbone\.layer1\.0\.convs\.",
        r"backbone\.bottom_up\.net\.layer1\.0\.convs\.",
        "a Res2Net",
        "set the backbone as configs/htc/htc_res2net101_fpn_20e.py does",
    ),
    (
        r"backbone\.stage2\.0\.branches\.",
        r"backbone\.bottom_up\.net\.stage2\.",
        "an HRNet",
        _HRNET,
    ),
    (r"neck\.reduction_conv\.", r"backbone\.reduction_conv\.", "an HRFPN", _HRNET),
    (r"neck\.(downsample|pafpn)_convs\.", "", "a path aggregation network (PAFPN)", ""),
    (r"neck\.(rfp|aspp|rfp_aspp)", "", "a recursive pyramid (DetectoRS)", ""),
    (r"neck\.[0-9]\.", "", "a neck of several parts", ""),
    (r"backbone\.layer\d\.\d+\.conv2\.(fc1|conv)\.", "", "a ResNeSt", ""),
    (r"backbone\.layer\d\.\d+\.(conv2\.switch|rfp_conv)", "", "a ResNet of DetectoRS", ""),
    (
        r"backbone\.layer\d\.\d+\.(context_block|gen_attention_block)",
        "",
        "a plugin of a ResNet",
        "",
    ),
    (r"rpn_head\.(conv_loc|conv_shape|feature_adaption)", "", "guided anchoring", ""),
    (r"rpn_head\.stages\.", "", "a cascade of RPNs", ""),
)

_SWIN = (
    # Original names are Detectron2's; these are MMDetection's own.
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^stages\.", "layers."),
    (r"\.attn\.w_msa\.", ".attn."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
_SWIN_NAME = re.compile(
    r"(patch_embed\.(proj|norm)\.|absolute_pos_embed$|layers\.\d\.(blocks\.\d+|downsample)\.|norm\d\.)"
)
# ConvNeXt and Res2Net here are timm's.
_TIMM = (
    (r"^downsample_layers\.0\.(\d)\.", r"stem_\1."),
    (r"^downsample_layers\.(\d)\.(\d)\.", r"stages_\1.downsample.\2."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages_\1.blocks.\2."),
    (r"\.depthwise_conv\.", ".conv_dw."),
    (r"\.pointwise_conv(\d)\.", r".mlp.fc\1."),
    # The stem of a Res2Net; its last norm has a name of its own.
    (r"^stem\.([0-6])\.", r"conv1.\1."),
    (r"^stem\.7\.", "bn1."),
)
_PATCH_MERGING = re.compile(r"backbone\.stages\.\d\.downsample\.(norm|reduction)\.(weight|bias)")


def backbone_names(name: str, layout: Layout) -> list[str]:
    """Return our names of a parameter of a backbone; [] if no backbone of ours has it.

    Args:
        name: MMDetection's name without "backbone.": of MMDetection's own modules, of
            MMPretrain's ConvNeXt, or of the Swin Transformer's authors.
        layout: the layout of the model, which gives the prefixes.
    """
    if layout.timm:
        if match := re.fullmatch(r"norm(\d)\.(\w+)", name):
            return [f"{p}out_norms.res{int(match[1]) + 2}.{match[2]}" for p in layout.bottom_ups]
        return [f"{prefix}net.{_replace(_TIMM, name)}" for prefix in layout.bottom_ups]
    swin = _replace(_SWIN, name)
    if _SWIN_NAME.match(swin):
        return [prefix + swin for prefix in layout.bottom_ups]
    return resnet_names(name, layout)


def _replace(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def refuse_missing_parts(
    state_dict: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor] | None
) -> None:
    """Check that the model has all those parts of the file that only some models have.

    Args:
        state_dict: the tensors of the file.
        target: the state dict of the model, if it is known.

    Raises:
        ValueError: if a part has no counterpart here at all, or none in this model. The message
            names the part, a tensor of it, and a config that has it.
    """
    for theirs, ours, part, advice in _PARTS:
        found = next((name for name in state_dict if re.match(theirs, name)), None)
        if found is None or (ours and target and any(re.match(ours, name) for name in target)):
            continue
        if not ours:
            raise ValueError(f"The file has {part} ({found}), which has no counterpart here")
        if target is not None:
            raise ValueError(
                f"The file has {part} ({found}), and the model of this config has none: {advice}"
            )
        if part != "a Swin Transformer":
            raise ValueError(
                f"The file has {part} ({found}), whose names depend on the model. Pass its config "
                "with --config-file"
            )


def reorder_patch_merging(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors with the input channels of Swin's patch merging in the authors' order.

    A merged pixel has four times C channels, of 2 x 2 pixels. MMDetection's own module unfolds
    them: channel by channel, each with its pixels row by row. The authors and Detectron2
    concatenate the C channels of the pixels, column by column.
    """
    return {
        name: _pixels_first(tensor, name) if _PATCH_MERGING.fullmatch(name) else tensor
        for name, tensor in state_dict.items()
    }


def _pixels_first(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if tensor.dim() == 0 or tensor.shape[-1] % 4:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, whose channels are not of 2 x 2 pixels")
    by_pixel = tensor.unflatten(-1, (-1, 2, 2))  # C, row, column
    return by_pixel.movedim(-3, -1).transpose(-3, -2).flatten(-3)


def check_res2net(model: nn.Module, yaml: bool) -> str:
    """Return how to mend a Res2Net that pools where MMDetection's does not; "" if none does."""
    net = getattr(getattr(model.backbone, "bottom_up", None), "net", None)
    first = getattr(net, "layer1", [None])[0]
    if getattr(first, "pool", None) is None or not hasattr(first, "convs"):
        return ""
    override = (
        "MODEL.TIMM.POOL_FIRST_BLOCK False"
        if yaml
        else "model.backbone.bottom_up.pool_first_block=False"
    )
    return f"MMDetection's Res2Net does not pool in its first block: {override}"
