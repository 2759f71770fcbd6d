"""A moving average of the weights of a training (EMA)."""

from typing import Any

from detectron2.engine.hooks import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class AverageWeights(HookBase):
    """Keep the exponential moving average of a model's parameters and buffers.

    After update n, counted from 0, averages are d * averages + (1 - d) * weights, with
    d = min(decay, (1 + n) / (10 + n)), so that the first weights are forgotten soon. The first
    update copies the weights.

    Checkpoints are meant to have the averaged model as their model. The weights that are trained
    are in the state of this hook.

    Attributes:
        model: a copy of the trained model with the averages, in eval mode.
    """

    def __init__(self, trained: nn.Module, decay: float):
        """
        Args:
            trained: the model that the optimizer changes.
            decay: in (0, 1); 0.999 averages over about a thousand iterations.
        """
        self._trained = trained
        self._decay = decay
        self._averaged = AveragedModel(trained, multi_avg_fn=self._average, use_buffers=True)
        self.model = self._averaged.module.eval().requires_grad_(False)

    def _average(self, averages: list[Tensor], weights: list[Tensor], number: Tensor) -> None:
        n = int(number)
        decay = min(self._decay, (1 + n) / (10 + n))
        get_ema_multi_avg_fn(decay)(averages, weights, number)

    def start(self) -> None:
        """Give the trained model the weights of the averaged one; begin a new average."""
        self._trained.load_state_dict(self.model.state_dict())
        self._averaged.n_averaged.zero_()

    def after_step(self) -> None:
        self._averaged.update_parameters(self._trained)

    def state_dict(self) -> dict[str, Any]:
        return {
            "trained": self._trained.state_dict(),
            "updates": int(self._averaged.n_averaged),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._trained.load_state_dict(state["trained"])
        self._averaged.n_averaged.fill_(state["updates"])
