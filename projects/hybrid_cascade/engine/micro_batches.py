"""Batches that go through the model in parts, whose gradients are added up."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class MicroBatchTrainer(SimpleTrainer):
    """`SimpleTrainer` that accumulates the gradients of a batch's parts before each step.

    The loss is the mean of the parts' losses. The gradients of several processes are averaged with
    the last part.

    Raises:
        ValueError: by `run_step`, if a batch cannot be divided into equal parts.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        num_parts: int,
        **kwargs: Any,
    ):
        """
        Args:
            model, data_loader, optimizer, kwargs: see `SimpleTrainer`, or `AMPTrainer`.
            num_parts: parts of equal size; the number of images in a batch has to be a multiple.
        """
        super().__init__(model, data_loader, optimizer, **kwargs)
        self.num_parts = num_parts

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        size, rest = divmod(len(batch), self.num_parts)
        if rest:
            raise ValueError(
                f"The data loader gives a batch of {len(batch)} images, which are no "
                f"{self.num_parts} equal parts (train.micro_batches or SOLVER.MICRO_BATCHES)"
            )
        *first, last = (batch[i * size : (i + 1) * size] for i in range(self.num_parts))
        self.optimizer.zero_grad()
        parallel = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if parallel else nullcontext():
            losses = [self._accumulate(part) for part in first]
        losses.append(self._accumulate(last))
        self.after_backward()
        means = {name: torch.stack([x[name] for x in losses]).mean() for name in losses[0]}
        self._write_metrics(means, data_time)
        self._step()

    def _accumulate(self, part: list[dict]) -> dict[str, Tensor]:
        """Add the gradients of a part of the batch; return its losses."""
        losses = self._forward(part)
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        self._scaled(sum(losses.values()) / self.num_parts).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _forward(self, part: list[dict]) -> dict[str, Tensor] | Tensor:
        return self.model(part)

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss

    def _step(self) -> None:
        self.optimizer.step()


class MicroBatchAMPTrainer(MicroBatchTrainer, AMPTrainer):
    """`MicroBatchTrainer` in mixed precision."""

    def _forward(self, part: list[dict]) -> dict[str, Tensor] | Tensor:
        with torch.autocast("cuda", dtype=self.precision):
            return self.model(part)

    def _scaled(self, loss: Tensor) -> Tensor:
        return self.grad_scaler.scale(loss)

    def _step(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
