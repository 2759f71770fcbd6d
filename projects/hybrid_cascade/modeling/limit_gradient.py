"""Keep the gradients of box deltas within bounds, and their values as they are."""

from torch import Tensor


def limit_gradient(deltas: Tensor, bound: float | None, num_images: int) -> Tensor:
    """Return deltas, with each element of the gradient that comes back clamped.

    MNC's released code, which takes one image at a time, clamps with 1/512 where the gradients of
    the later stages enter box deltas; the RPN's own loss gives a delta at most 1/256. Losses of a
    batch are means over its images, so that the bound is divided by their number, which keeps the
    balance. Without it the later stages shrink boxes until every mask is easy.

    Args:
        deltas: of any shape.
        bound: positive, for a batch of one image; None for no limit.
        num_images: of the batch.
    """
    if bound is None or not deltas.requires_grad:
        return deltas
    bound = bound / num_images
    deltas = deltas.view_as(deltas)  # the hook must not see the gradients of its other uses
    deltas.register_hook(lambda gradient: gradient.clamp(-bound, bound))
    return deltas
