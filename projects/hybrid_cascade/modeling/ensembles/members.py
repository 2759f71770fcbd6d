"""What an ensemble gives to each of its models, and asks of them, if their configs differ.

Shapes: C channels, (H, W) the size of an image, R boxes, K classes, M the side of a mask.
"""

from collections.abc import Sequence

from detectron2.modeling import GeneralizedRCNN
from torch import Tensor
from torch.nn import functional as F

_COLORS = {"RGB", "BGR"}


def check_members(models: Sequence[GeneralizedRCNN]) -> None:
    """Raise a ValueError for models that can't see the same images or score the same classes.

    All have the same number of classes, and the same `input_format`, or "RGB" and "BGR".
    """
    classes = [model.roi_heads.num_classes for model in models]
    if len(set(classes)) != 1:
        raise ValueError(f"An ensemble joins models of the same classes, not of {classes}")
    formats = [model.input_format for model in models]
    if len(set(formats)) != 1 and not _COLORS.issuperset(formats):
        raise ValueError(
            f"The models of an ensemble have the input formats {formats}: images can be turned "
            "from RGB to BGR and back only (model.input_format, INPUT.FORMAT)"
        )


def images_for(
    model: GeneralizedRCNN, batched_inputs: list[dict], input_format: str | None
) -> list[dict]:
    """Return inputs whose images, (C, H, W), have the order of the channels that a model expects.

    Args:
        model: one of those that passed `check_members`.
        batched_inputs: with images in `input_format`. They are not changed.
        input_format: "RGB" or "BGR"; any, if it is the model's.
    """
    if model.input_format == input_format:
        return batched_inputs
    return [{**x, "image": x["image"].flip(0)} for x in batched_inputs]


def boxes_of_one_kind(boxes: Sequence[Tensor], num_classes: int) -> list[Tensor]:
    """Return boxes (R, 4) that are for all classes as (R, 4 K), if any are for each class.

    Args:
        boxes: of each model, (R, 4) or (R, 4 K).
        num_classes: K.
    """
    if len({b.shape[1] for b in boxes}) == 1:
        return list(boxes)
    return [b.repeat(1, num_classes) if b.shape[1] == 4 else b for b in boxes]


def masks_of_one_size(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return mask probabilities, (R, 1, M, M) each, with the M of the first.

    Masks cover their boxes in any resolution, so that they can be resized.
    """
    size = masks[0].shape[-2:]
    return [
        m
        if m.shape[-2:] == size
        else F.interpolate(m, size=size, mode="bilinear", align_corners=False)
        for m in masks
    ]
