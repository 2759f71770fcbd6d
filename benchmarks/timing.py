"""How the benchmarks take times: in turn, in parts, and for a step of training."""

from __future__ import annotations

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Measurement = TypeVar("Measurement")

# Parts of a two-stage detector and of its training.
BACKBONE, SEMANTIC, RPN, BOXES, MASKS = "backbone + FPN", "semantic", "RPN", "boxes", "masks"
PASTE, BACKWARD, UPDATE, OTHER = "paste", "backward", "SGD", "other"
PARTS = [BACKBONE, SEMANTIC, RPN, BOXES, MASKS, PASTE, BACKWARD, UPDATE, OTHER]


def interleaved(
    runs: Mapping[str, Callable[[], Measurement]], rounds: int
) -> dict[str, list[Measurement]]:
    """Call each of `runs` once in every round, so that a busy machine slows all of them alike.

    Each round starts with another one, so that none always runs after the same.

    Returns:
        The results of each of `runs`, round by round.
    """
    names = list(runs)
    results = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(runs[name]())
    return results


def medians(rounds: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each key over the rounds; a key that a round lacks is 0 there."""
    keys = dict.fromkeys(key for r in rounds for key in r)
    return {key: statistics.median(r.get(key, 0.0) for r in rounds) for key in keys}


def synchronize(device: str) -> None:
    """Wait until the device ("cpu" or "cuda") has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(function: Callable[[], object], device: str = "cpu") -> float:
    """Return the seconds that a call takes on a device ("cpu" or "cuda")."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


class Parts:
    """What a call takes, part by part: seconds, or what another clock counts.

    A part is one or more methods. `measure` replaces them while it runs by ones that read the
    clock. What a part inside another takes counts for the inner one only, so that the parts add up
    to the whole call.
    """

    def __init__(self, device: str = "cpu", clock: Callable[[], float] = time.perf_counter):
        """
        Args:
            device: "cpu" or "cuda".
            clock: returns a number that grows.
        """
        self.device = device
        self.clock = clock
        self._watched: list[tuple[object, str, str]] = []
        self._taken: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    def watch(self, part: str, owner: object, method: str) -> None:
        """Count a method of an object, or a static method of a class, for a part."""
        self._watched.append((owner, method, part))

    def measure(self, function: Callable[[], object], rest: str = OTHER) -> dict[str, float]:
        """Call the function; return what each part took, and the rest of the call."""
        self._taken = defaultdict(float)
        replaced = []
        for owner, method, part in self._watched:
            replaced.append((owner, method, vars(owner).get(method)))
            timed = self._timed(getattr(owner, method), part)
            setattr(owner, method, staticmethod(timed) if isinstance(owner, type) else timed)
        try:
            self._timed(function, rest)()
        finally:
            for owner, method, before in reversed(replaced):
                delattr(owner, method)
                if before is not None:
                    setattr(owner, method, before)
        return dict(self._taken)

    def _timed(self, function: Callable, part: str) -> Callable:
        @functools.wraps(function)
        def timed(*args, **kwargs):
            self._switch()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        """Count what was taken since the last switch for the part that ran."""
        synchronize(self.device)
        now = self.clock()
        if self._running:
            self._taken[self._running[-1]] += now - self._since
        self._since = now


class TrainingStep:
    """Forward, backward and update, with learning rate 0: every step does the same work."""

    def __init__(
        self,
        losses: Callable[[], Mapping[str, torch.Tensor]],
        optimizer: torch.optim.Optimizer,
        device: str = "cpu",
        amp: bool = False,
    ):
        """
        Args:
            losses: returns the model's losses of a batch, by name.
            optimizer: of the model's parameters; its learning rates are set to 0.
            device: "cpu" or "cuda".
            amp: mixed precision, with float16 and scaled gradients; needs a GPU.
        """
        self.losses = losses
        self.optimizer = optimizer
        self.device = device
        self.amp = amp
        self.scaler = torch.amp.GradScaler(device, enabled=amp)
        for group in optimizer.param_groups:
            group["lr"] = 0.0

    def __call__(self) -> None:
        # The same samples of RoIs every time.
        torch.manual_seed(0)
        self.optimizer.zero_grad()
        loss = self.forward()
        self.backward(loss)
        self.update()

    def forward(self) -> torch.Tensor:
        with torch.autocast(self.device, torch.float16, enabled=self.amp):
            return sum(self.losses().values())

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
