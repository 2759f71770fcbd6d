"""Deformable convolutions on torchvision's operator, without Detectron2's compiled part.

Arguments, attributes and tensor names are those of `detectron2.layers.DeformConv` and
`ModulatedDeformConv`, so checkpoints fit both.

Shapes: N images, h x w feature map, h' x w' resulting map. A kernel has height * width points.
"""

import torch
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair
from torchvision.ops import deform_conv2d

from .checks import check_pair, check_tensors

_FAR = 1e4  # an offset beyond every map, in pixels


class ModulatedDeformConv(nn.Module):
    """Deformable convolution v2 (arXiv 1811.11168): kernel points have offsets and weights."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        activation=None,
    ):
        """
        Args:
            deformable_groups: number of groups of input channels that have offsets of their own.
            norm: applied to the result.
            activation: a callable, applied after the norm.

        The other arguments are those of `torch.nn.Conv2d`.

        Raises:
            ValueError: if the groups do not divide the channels, a padding is negative, or another
                number is less than 1.
            TypeError: for numbers that are not whole.
        """
        super().__init__()
        for name, pair, least in [
            ("channels", (in_channels, out_channels), 1),
            ("groups, deformable_groups", (groups, deformable_groups), 1),
            ("kernel_size", _pair(kernel_size), 1),
            ("stride", _pair(stride), 1),
            ("padding", _pair(padding), 0),
            ("dilation", _pair(dilation), 1),
        ]:
            check_pair(name, pair, least)
        for name, number, channels in [
            ("groups", groups, in_channels),
            ("groups", groups, out_channels),
            ("deformable_groups", deformable_groups, in_channels),
        ]:
            if channels % number:
                raise ValueError(f"{name}={number} does not divide {channels} channels")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.deformable_groups = deformable_groups
        self.norm = norm
        self.activation = activation
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the convolution of a map, with norm and activation.

        Args:
            x: (N, input channels, h, w).
            offset: (N, 2 * deformable groups * kernel points, h', w'), in pixels: dy, then dx, for
                each kernel point of each group. NaN reads zero, as offsets beyond the map do.
            mask: (N, deformable groups * kernel points, h', w'), the weights of the kernel points.
                None: all are 1.

        Returns:
            (N, output channels, h', w').

        Raises:
            ValueError: for other shapes, or tensors on several devices; names the argument.
            TypeError: for tensors that are sparse or of another type than the weight.
        """
        if not torch.jit.is_tracing():
            self._check(x, offset, mask)
        # torchvision would read out of bounds.
        offset = offset.nan_to_num(nan=_FAR, posinf=_FAR, neginf=-_FAR)
        x = deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x

    def _check(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None) -> None:
        tensors = {"x": x, "offset": offset, "mask": mask}
        if mask is None:
            del tensors["mask"]
        check_tensors(**tensors, weight=self.weight)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must be (N, {self.in_channels}, h, w), got {tuple(x.shape)}")
        sides = zip(
            x.shape[2:], self.padding, self.dilation, self.kernel_size, self.stride, strict=True
        )
        result = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in sides)
        if min(result) < 1:
            raise ValueError(f"x of {tuple(x.shape)} is smaller than the kernel, {self}")
        points = self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]
        for name, channels in (("offset", 2 * points), ("mask", points)):
            expected = (len(x), channels, *result)
            if name in tensors and tensors[name].shape != expected:
                raise ValueError(f"{name} must be {expected}, got {tuple(tensors[name].shape)}")
        if torch.is_autocast_enabled(x.device.type):  # it makes the types equal
            return
        for name, tensor in tensors.items():
            if tensor.dtype != self.weight.dtype:
                raise TypeError(f"{name} is {tensor.dtype}, but the weight is {self.weight.dtype}")

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, deformable_groups={self.deformable_groups}"
        )


class DeformConv(ModulatedDeformConv):
    """Deformable convolution v1 (arXiv 1703.06211), which has neither weights nor a bias."""

    def __init__(self, *args, bias: bool = False, **kwargs):
        """Take the arguments of `ModulatedDeformConv`.

        Raises:
            ValueError: for `bias=True`, as in Detectron2, and as `ModulatedDeformConv`.
        """
        if bias:
            raise ValueError("DeformConv has no bias")
        super().__init__(*args, bias=False, **kwargs)

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Return `ModulatedDeformConv.forward` with all weights 1."""
        return super().forward(x, offset, None)


class DeformBottleneckBlock(BottleneckBlock):
    """A bottleneck of a ResNet or ResNeXt whose 3x3 convolution is deformable.

    It takes the place of Detectron2's class of this name: same arguments, same tensor names.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        num_groups: int = 1,
        norm: str = "BN",
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
        **kwargs,
    ):
        """
        Args:
            deform_modulated: whether to use deformable convolution v2.
            deform_num_groups: number of deformable groups.

        The other arguments are those of `BottleneckBlock`.
        """
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            num_groups=num_groups,
            norm=norm,
            **kwargs,
        )
        self.deform_modulated = deform_modulated
        # Of the 3x3 convolution that a deformable one replaces.
        settings = {
            "kernel_size": 3,
            "stride": self.conv2.stride,
            "padding": self.conv2.padding,
            "dilation": self.conv2.dilation,
        }
        self.conv2_offset = Conv2d(
            bottleneck_channels, (3 if deform_modulated else 2) * 9 * deform_num_groups, **settings
        )
        # Zero offsets: training starts from an ordinary convolution.
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)
        self.conv2 = (ModulatedDeformConv if deform_modulated else DeformConv)(
            bottleneck_channels,
            bottleneck_channels,
            **settings,
            groups=num_groups,
            deformable_groups=deform_num_groups,
            bias=False,
            norm=get_norm(norm, bottleneck_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn (N, input channels, h, w) into (N, output channels, h / stride, w / stride)."""
        out = F.relu_(self.conv1(x))
        offset = self.conv2_offset(out)
        if self.deform_modulated:
            points = offset.shape[1] // 3
            offset, mask = offset.split([2 * points, points], dim=1)
            out = self.conv2(out, offset, mask.sigmoid())
        else:
            out = self.conv2(out, offset)
        out = self.conv3(F.relu_(out))
        return F.relu_(out + (x if self.shortcut is None else self.shortcut(x)))
