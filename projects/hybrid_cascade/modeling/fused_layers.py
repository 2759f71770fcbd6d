"""Join layers for inference: norms with convolutions, ReLUs in place, oneDNN for all products.

A large map that is not written again saves more than its arithmetic on a CPU: the system clears the
pages of a new one first.
"""

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .module_hooks import has_hooks
from .shared_copy import shared_copy


def fuse_layers(model: nn.Module) -> nn.Module:
    """Return a copy of a model, in eval mode, that infers faster; results differ by rounding only.

    - The batch norm of Detectron2's `Conv2d` (FrozenBatchNorm2d, or BatchNorm2d and SyncBatchNorm
      with their running statistics) is folded into its weights. Group and layer norms stay, and so
      do the norms of deformable convolutions and those that are layers of their own, as in timm.
    - A ReLU works in place where nothing else can see its input.
    - Linear layers compute in oneDNN on CPUs (`OneDNNLinear`).

    Layers with hooks stay as they are. The model does not change, nor do the names of its tensors.
    The copy has the same tensors, except in convolutions whose norm is folded: after a change of
    the model's weights, make another one.
    """
    fused = shared_copy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, Conv2d) and not has_hooks(module):
            _fuse(module)
        if isinstance(module, MaskRCNNConvUpsampleHead) and not has_hooks(module.deconv_relu):
            module.deconv_relu = nn.ReLU(inplace=True)
        for name, layer in module.named_children():
            if type(layer) is nn.Linear and not has_hooks(layer):
                setattr(module, name, OneDNNLinear.of(layer))
    return fused


def _fuse(conv: Conv2d) -> None:
    norm = conv.norm
    if isinstance(norm, FrozenBatchNorm2d | _BatchNorm) and norm.running_mean is not None:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            *(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps),
            *(norm.weight, norm.bias),
        )
        conv.norm = None
    if isinstance(conv.activation, nn.ReLU):
        conv.activation = nn.ReLU(inplace=True)


class OneDNNLinear(nn.Linear):
    """A linear layer that computes in oneDNN on a CPU at inference.

    PyTorch takes MKL for float32, which has half of oneDNN's speed on AMD's processors.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> "OneDNNLinear":
        """Return such a layer with the tensors of another one."""
        linear = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        linear.weight, linear.bias = layer.weight, layer.bias
        return linear.train(layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (
            torch.backends.mkldnn.is_available()
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_grad_enabled()  # the operator has no gradient
            and not torch.is_autocast_enabled("cpu")
        ):
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return super().forward(x)
