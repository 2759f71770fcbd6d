"""Stop a training whose losses or weights are not finite, before it writes them down."""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine.hooks import HookBase
from detectron2.utils import comm
from torch import Tensor, nn

ADVICE = (
    "Checkpoints from before are kept: --resume continues from the last. The same images come "
    "again, so look at them first; a lower learning rate, a longer warm-up or gradient clipping "
    "help if they are in order."
)


class CheckLosses(HookBase):
    """Stop in all processes if the losses of one are not finite, before the optimizer's step.

    It is registered with a trainer, which starts and ends it, and with the loop of the trainer, as
    that alone tells when gradients are there.

    Raises:
        FloatingPointError: by `after_backward`; names the iteration, losses and image files.
    """

    def __init__(self) -> None:
        self._batch: list[dict] = []
        self._losses: dict[str, Tensor] = {}
        self._handle: Any = None

    def before_train(self) -> None:
        self._handle = self.trainer.model.register_forward_hook(self._note)

    def after_train(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._batch, self._losses = [], {}

    def _note(self, model: nn.Module, args: tuple, losses: Any) -> None:
        if model.training:
            self._batch = args[0]
            self._losses = losses if isinstance(losses, Mapping) else {"total_loss": losses}

    def after_backward(self) -> None:
        values = torch.stack([loss.detach().float() for loss in self._losses.values()])
        fault = None
        if not values.isfinite().all():
            losses = ", ".join(f"{k} = {v.item():.4g}" for k, v in self._losses.items())
            files = ", ".join(str(x.get("file_name", x.get("image_id"))) for x in self._batch)
            fault = f"{_process()}: {losses}; its images: {files}."
        faults = [fault for fault in comm.all_gather(fault) if fault]
        if faults:
            raise FloatingPointError(
                f"The loss is not finite at iteration {self.trainer.iter}. {' '.join(faults)} "
                f"{ADVICE}"
            )


class CheckWeights(HookBase):
    """Stop in all processes before weights that are not finite are written to a checkpoint.

    Raises:
        FloatingPointError: by `after_step`; names the iteration and the weights.
    """

    def __init__(self, period: int):
        """
        Args:
            period: iterations between two checkpoints. The last iteration has one too.
        """
        self.period = period

    def after_step(self) -> None:
        following = self.trainer.iter + 1
        if following % self.period == 0 or following >= self.trainer.max_iter:
            check_weights(self.trainer.model, self.trainer.iter)


def check_weights(model: nn.Module, iteration: int, *, in_all_processes: bool = True) -> None:
    """Raise a FloatingPointError if parameters or statistics of norms are NaN or infinite.

    Args:
        model: the model of a training.
        iteration: the one that it is after.
        in_all_processes: raise it in all if it concerns one, all of which have to call this.
    """
    statistics = ("running_mean", "running_var")
    tensors = dict(model.named_parameters())
    tensors |= {k: v for k, v in model.named_buffers() if k.endswith(statistics)}
    bad = [name for name, value in tensors.items() if not value.isfinite().all()]
    fault = None
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        fault = f"{_process()}: {', '.join(bad[:5])}{more}."
    faults = comm.all_gather(fault) if in_all_processes else [fault]
    if any(faults):
        raise FloatingPointError(
            f"The weights are not finite after iteration {iteration}, no checkpoint is written. "
            f"{' '.join(fault for fault in faults if fault)} {ADVICE}"
        )


def _process() -> str:
    return f"Process {comm.get_rank() + 1} of {comm.get_world_size()}"
