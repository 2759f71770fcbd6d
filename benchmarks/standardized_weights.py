"""Random weights under which every layer of a detector matters, without any training."""

from collections.abc import Callable

import torch
from torch import nn

# Standard deviation of the outputs of the last layers, by the end of their names (MMDetection's,
# then Detectron2's); 1 for all others.
DEVIATIONS = {
    **{"rpn_cls": 2.0, "rpn_reg": 0.3, "fc_cls": 1.5, "fc_reg": 0.7, "conv_logits": 2.0},
    **{"objectness_logits": 2.0, "anchor_deltas": 0.3, "cls_score": 1.5, "bbox_pred": 0.7},
    "predictor": 2.0,
}


def standardize_weights(model: nn.Module, detect: Callable[[], object]) -> None:
    """Draw weights with which classes, scores, boxes and masks differ between places of an image.

    With a detector's usual initial weights they hardly do. Here each layer gets weights, and a
    scale and a bias for each output channel, such that in one pass over an image every channel has
    mean 0 and the standard deviation of `DEVIATIONS` (layer-sequential unit-variance
    initialization, arXiv 1511.06422, with biases and other last layers). Every map needs more than
    a few cells.

    Args:
        model: with normalization by fixed statistics, of MMDetection or Detectron2; changed in
            place. Its layers need to have a bias or a normalization to be standardized.
        detect: lets the model detect in an image.
    """
    handles = []

    def standardize(module, _inputs, output):
        activation = activations.get(module, nn.Identity())
        if module in standardized:  # the RPN head runs on every level
            return activation(output)
        standardized.add(module)
        target = next((d for end, d in DEVIATIONS.items() if name_of[module].endswith(end)), 1.0)
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
    # Detectron2's convolutions call their activation themselves; it is its input that counts.
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
        detect()
    for handle in handles:
        handle.remove()
    for module, activation in activations.items():
        module.activation = activation
