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


class NotFiniteError(FloatingPointError):
    """Losses or weights of a training are not finite."""


class CheckLosses(HookBase):
    """Stop in all processes if the losses of one are not finite, before the optimizer's step.

    It is registered with a trainer, which starts and ends it, and with the loop of the trainer, as
    that alone tells when gradients are there. All parts of a batch count, if it goes through the
    model in parts.

    Raises:
        NotFiniteError: by `after_backward`; names the iteration, losses and image files.
    """

    def __init__(self) -> None:
        self._batch: list[dict] = []
        self._losses: Mapping[str, Tensor] = {}
        self._parts: list[tuple[list[dict], Mapping[str, Tensor]]] = []  # of this iteration
        self._handles: list[Any] = []

    def before_train(self) -> None:
        model = self.trainer.model
        self._handles = [
            model.register_forward_pre_hook(self._note_batch),
            model.register_forward_hook(self._note_losses),
        ]

    def after_train(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._batch, self._losses, self._parts = [], {}, []

    def before_step(self) -> None:
        self._parts.clear()

    def _note_batch(self, model: nn.Module, args: tuple) -> None:
        if model.training:
            self._batch = args[0]

    def _note_losses(self, model: nn.Module, _args: tuple, losses: Any) -> None:
        if model.training:
            losses = losses if isinstance(losses, Mapping) else {"total_loss": losses}
            self._losses = {name: loss.detach() for name, loss in losses.items()}
            self._parts.append((self._batch, self._losses))

    def after_backward(self) -> None:
        fault = None
        values = [loss.float() for _, losses in self._parts for loss in losses.values()]
        if values and not torch.stack(values).isfinite().all():
            bad = (part for part in self._parts if not all(x.isfinite() for x in part[1].values()))
            self._batch, self._losses = next(bad)
            fault = f"{self._list_losses()} ({self._list_images()})"
        self._parts.clear()
        faults = [fault for fault in comm.all_gather(fault) if fault]
        if faults:
            raise NotFiniteError(
                f"The loss is not finite at iteration {self.trainer.iter}: {'; '.join(faults)}. "
                f"{ADVICE}"
            )

    def explain(self, error: FloatingPointError) -> NotFiniteError:
        """Return an error of a forward pass, such as that of Detectron2's RPN, with its images."""
        before = f"In the iteration before, {self._list_losses()}. " if self._losses else ""
        return NotFiniteError(
            f"No finite losses at iteration {self.trainer.iter}: {error} In {_process()}, "
            f"{self._list_images()}. {before}{ADVICE}"
        )

    def _list_losses(self) -> str:
        losses = (f"{name} = {value.item():.4g}" for name, value in self._losses.items())
        return f"the losses of {_process()} were {', '.join(losses)}"

    def _list_images(self) -> str:
        files = (str(image.get("file_name", image.get("image_id"))) for image in self._batch)
        return f"images of the batch: {', '.join(files)}"


class CheckWeights(HookBase):
    """Stop in all processes before weights that are not finite are written to a checkpoint.

    Raises:
        NotFiniteError: by `after_step`; names the iteration and the weights.
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
    """Raise a NotFiniteError if parameters or statistics of norms are NaN or infinite.

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
        fault = f"In {_process()}: {', '.join(bad[:5])}{more}."
    faults = comm.all_gather(fault) if in_all_processes else [fault]
    if any(faults):
        raise NotFiniteError(
            f"The weights are not finite after iteration {iteration}, no checkpoint is written. "
            f"{' '.join(fault for fault in faults if fault)} {ADVICE}"
        )


def _process() -> str:
    return f"process {comm.get_rank() + 1} of {comm.get_world_size()}"
