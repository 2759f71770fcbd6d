"""Random weights under which every layer of a detector matters, without any training."""

from collections.abc import Callable

import torch
from torch import nn

# Deviation of what the last layers put out (MMDetection's names, then Detectron2's), 1 elsewhere.
SPREAD = {
    **{"rpn_cls": 2.0, "rpn_reg": 0.3, "fc_cls": 1.5, "fc_reg": 0.7, "conv_logits": 2.0},
    **{"objectness_logits": 2.0, "anchor_deltas": 0.3, "cls_score": 1.5, "bbox_pred": 0.7},
    "predictor": 2.0,
}


def make_lively(model: nn.Module, run: Callable[[], object]) -> None:
    """Draw weights under which every layer matters, as the default initialization's do not.

    In one pass over an image the output channels of each layer get mean 0 and the deviation that
    `SPREAD` says, by weight and bias: classes, scores, boxes and masks then differ between places.

    Args:
        model: with normalization by fixed statistics, of MMDetection or Detectron2.
        run: lets the model detect in an image.
    """
    handles = []

    def standardize(module, _inputs, output):
        activation = activations.get(module, nn.Identity())
        if module in standardized:  # the RPN head runs on every level
            return activation(output)
        standardized.add(module)
        target = next((s for end, s in SPREAD.items() if name_of[module].endswith(end)), 1.0)
        dims = [d for d in range(output.dim()) if d != 1]
        scale = target / output.std(dims).clamp(min=1e-3)
        shift = -output.mean(dims) * scale
        out_dim = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        shape = [-1 if d == out_dim else 1 for d in range(module.weight.dim())]
        module.weight.data *= scale.view(shape)
        module.bias.data = module.bias * scale + shift
        shape = [-1 if d == 1 else 1 for d in range(output.dim())]
        return activation(output * scale.view(shape) + shift.view(shape))

    standardized = set()
    name_of = {module: name for name, module in model.named_modules()}
    # Detectron2's convolutions have their activation inside; what it gets is standardized.
    activations = {m: m.activation for m in name_of if getattr(m, "activation", None) is not None}
    for module in activations:
        module.activation = None
    for module in name_of:
        if hasattr(module, "running_mean"):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            handles.append(module.register_forward_hook(standardize))
        elif getattr(module, "weight", None) is not None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                handles.append(module.register_forward_hook(standardize))
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    for module, activation in activations.items():
        module.activation = activation
