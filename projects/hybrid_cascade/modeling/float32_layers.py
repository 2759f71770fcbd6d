"""What stays in float32 where a model infers in 16 bits."""

from collections.abc import Iterator

import torch
from torch import nn
from torchvision.models.detection.ssd import SSDScoringHead

from .cascade import HTCROIHeads
from .shared_copy import shared_copy

# The last layers of Detectron2's detectors and of this project's: logits, and deltas of boxes.
LAST_LAYERS = (
    *("objectness_logits", "anchor_deltas", "cls_score", "box_cls_score", "bbox_pred"),
    *("predictor", "score_lowres"),
)

_WITH_WEIGHTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class Float32Layer(nn.Module):
    """A layer that computes in float32, under autocast too, and returns float32.

    Attributes:
        layer: the layer itself.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.float())


def with_float32_outputs(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose last layers are in float32 under `torch.autocast`.

    In bfloat16, a logit of 5 has steps of 0.03 and a shift by 100 pixels steps of 0.5. So only the
    layers before compute in 16 bits: logits, deltas, and all that is made of them (boxes, scores,
    NMS, masks in their images) are float32. Mask logits of `HTCROIHeads`, which sees to their type
    itself, are rounded to 16 bits. The copy has the tensors of the model, which stays as it is.

    Raises:
        ValueError: for a model without layers that are known to be its last.
    """
    model = shared_copy(model)
    last_layers = list(_last_layers(model))
    if not last_layers:
        raise ValueError(
            f"{type(model).__name__} can't infer in 16 bits: it has none of the layers "
            f"{', '.join(LAST_LAYERS)}, which have to stay in float32. Set train.inference.dtype "
            "(TEST.INFERENCE.DTYPE) to 'float32'."
        )
    for parent, name in last_layers:
        setattr(parent, name, Float32Layer(getattr(parent, name)))
    return model


def _last_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield the last layers, as a module and the name of a layer in it."""
    heads = [m for m in model.modules() if isinstance(m, HTCROIHeads) and m.mask_on]
    mask_heads = [mask_head for h in heads for mask_head in h.mask_head]
    for module in model.modules():
        if module in mask_heads:
            continue
        is_list = isinstance(module, SSDScoringHead)
        parent = module.module_list if is_list else module
        for name, layer in parent.named_children():
            if (is_list or name in LAST_LAYERS) and isinstance(layer, _WITH_WEIGHTS):
                yield parent, name
