"""Clamp the gradients of box deltas, within bounds that follow the scale of the losses.

In mixed precision a `torch.amp.GradScaler` multiplies losses by some thousands before the backward
pass, and divides the gradients by the same before the step. A bound that ignored the factor would
leave next to nothing of the gradients. So each clamp returns a zero to be added to the losses: the
gradient of that zero is the factor, which autograd computes anew in every backward pass.
"""

from collections.abc import Iterable

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.autograd import Function


class BoxGradientClamp:
    """Clamps the gradients that flow back into box deltas, in one forward pass.

    MNC's released code, which takes one image at a time, clamps with 1/512 where the gradients of
    the later stages enter box deltas; the RPN's own loss gives a delta at most 1/256. Losses of a
    batch are means over its images, so the bound is divided by their number, which keeps the
    balance. Without a bound the later stages shrink boxes until every mask is easy.

    Attributes:
        loss_scales: zeros without dimensions, one for each tensor of deltas. Their gradient is what
            a backward pass multiplies the losses by, once `tell_loss_scale` has joined them.
    """

    def __init__(self, bound: float | None, num_images: int):
        """
        Args:
            bound: positive, for a batch of one image and losses that are not scaled; None for no
                bound.
            num_images: of the batch.
        """
        self.bound = None if bound is None else bound / num_images
        self.loss_scales: list[Tensor] = []

    def __call__(self, deltas: Tensor) -> Tensor:
        """Return deltas of any shape, with each element of the gradient that comes back clamped.

        Gradients that reach the same tensor in other ways are not clamped.
        """
        if self.bound is None or not deltas.requires_grad:
            return deltas
        deltas, loss_scale = _Clamp.apply(deltas, self.bound)
        self.loss_scales.append(loss_scale)
        return deltas


class ClampedBoxes(Boxes):
    """Boxes (R, 4) that come with the clamp of the deltas they were made from.

    It reaches the losses of the ROI heads this way. Boxes that are indexed or moved to another
    device lose it; the bound then stays that of losses that are not scaled.
    """

    def __init__(self, tensor: Tensor, clamp: BoxGradientClamp | None = None):
        super().__init__(tensor)
        self.clamp = clamp


def clamps_of(proposals: list[Instances]) -> list[BoxGradientClamp]:
    """Return the clamps of the deltas that the proposals were made from, each once."""
    clamps = [getattr(p.proposal_boxes, "clamp", None) for p in proposals]
    return [clamp for clamp in dict.fromkeys(clamps) if clamp is not None]


def tell_loss_scale(
    losses: dict[str, Tensor], clamps: Iterable[BoxGradientClamp]
) -> dict[str, Tensor]:
    """Return the losses, such that the bounds of the clamps scale as a backward pass scales them.

    If a backward pass scales the losses differently, the largest factor counts. So losses that it
    leaves out, or multiplies by 0, do not matter.
    """
    loss_scales = [scale for clamp in clamps for scale in clamp.loss_scales]
    if not loss_scales:
        return losses
    zeros = _LargestGradient.apply(len(losses), *loss_scales).unbind()
    return {
        name: loss + zero.to(loss.dtype) if loss.requires_grad else loss
        for (name, loss), zero in zip(losses.items(), zeros, strict=True)
    }


class _Clamp(Function):
    """Returns a tensor as it is, and a zero whose gradient scales the bound."""

    @staticmethod
    def forward(ctx, x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.bound = bound
        # In float32, as half precision has no room for the factors of a `GradScaler`.
        return x.view_as(x), x.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: Tensor | None, loss_scale: Tensor | None):
        if gradient is None:
            return None, None
        bound = ctx.bound
        if loss_scale is not None:
            bound = torch.where(loss_scale > 0, bound * loss_scale, bound)
        return gradient.clamp(-bound, bound), None


class _LargestGradient(Function):
    """Returns zeros; the largest of their gradients, without signs, is the gradient of the inputs.

    Autograd itself would add the gradients up.
    """

    @staticmethod
    def forward(ctx, number: int, *inputs: Tensor) -> Tensor:
        ctx.num_inputs = len(inputs)
        return inputs[0].new_zeros(number)

    @staticmethod
    def backward(ctx, gradients: Tensor):
        return None, *[gradients.abs().amax()] * ctx.num_inputs
