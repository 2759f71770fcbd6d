"""Keep the gradients of box deltas within bounds, and their values as they are."""

import torch
from torch import Tensor


class _LossScale:
    """What the backward pass multiplies losses by, as far as it has come."""

    value: Tensor | None = None

    @classmethod
    def see(cls, gradient: Tensor) -> None:
        # One of several losses may have a weight of 0.
        cls.value = gradient if cls.value is None else torch.maximum(cls.value, gradient)


def watch_loss_scale(loss: Tensor) -> None:
    """Let the limits of `limit_gradient` scale as the backward pass scales this loss.

    In mixed precision a `torch.amp.GradScaler` multiplies losses by some thousands, and divides
    their gradients by that before the step. Limits that ignore it would leave nothing of them.
    """
    if loss.requires_grad:
        loss.register_hook(_LossScale.see)


def limit_gradient(deltas: Tensor, bound: float | None, num_images: int) -> Tensor:
    """Return deltas, with each element of the gradient that comes back clamped.

    MNC's released code, which takes one image at a time, clamps with 1/512 where the gradients of
    the later stages enter box deltas; the RPN's own loss gives a delta at most 1/256. Losses of a
    batch are means over its images, so that the bound is divided by their number, which keeps the
    balance. Without it the later stages shrink boxes until every mask is easy.

    Args:
        deltas: of any shape.
        bound: positive, for a batch of one image and losses that are not scaled; None for no limit.
        num_images: of the batch.
    """
    if bound is None or not deltas.requires_grad:
        return deltas
    _LossScale.value = None  # until a loss of this forward pass says otherwise
    bound = bound / num_images

    def clamp(gradient: Tensor) -> Tensor:
        limit = bound if _LossScale.value is None else bound * _LossScale.value
        return gradient.clamp(-limit, limit)

    deltas = deltas.view_as(deltas)  # the hook must not see the gradients of its other uses
    deltas.register_hook(clamp)
    return deltas
