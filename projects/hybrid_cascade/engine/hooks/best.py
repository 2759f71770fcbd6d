"""The weights of the best evaluation."""

import os

from detectron2.engine.hooks import BestCheckpointer
from detectron2.utils import comm

from ...converters.weights_file import read_file
from ..checkpoint_folder import BEST
from ..run_config import ConfigError


class KeepBest(BestCheckpointer):
    """Detectron2's `BestCheckpointer` for weights alone, which a resumed training goes on with.

    It writes `model_best.pth`, with the value of the metric. Its place is after evaluations.

    Raises:
        ConfigError: after an evaluation that does not measure the metric; names what it measures.
    """

    def __init__(self, period: int, metric: str):
        """
        Args:
            period: iterations between two evaluations; 0: at the end only.
            metric: such as "segm/AP", as `metrics.json` has it; larger is better.
        """
        super().__init__(period, self, metric, file_prefix=BEST)

    def before_train(self) -> None:
        folder = self.trainer.cfg.OUTPUT_DIR
        path = os.path.join(folder, f"{BEST}.pth")
        if self.trainer.start_iter and os.path.isfile(path):
            best = read_file(path, lazy=True).get("best", {})
            if best.get("metric") == self._val_metric:
                self.best_metric, self.best_iter = best["value"], best["iteration"]

    def _best_checking(self) -> None:
        if not comm.is_main_process():
            return
        measured = self.trainer.storage.latest()
        if self._val_metric not in measured:
            raise ConfigError(
                f"The evaluation does not measure {self._val_metric!r} "
                "(train.checkpointer.best_metric, SOLVER.BEST_CHECKPOINT_METRIC), but "
                + ", ".join(sorted(name for name in measured if "/" in name))
            )
        super()._best_checking()

    def save(self, name: str, iteration: int) -> None:
        """Write the weights; Detectron2's hook calls it as a method of a checkpointer."""
        value, _ = self.trainer.storage.latest()[self._val_metric]
        best = {"metric": self._val_metric, "value": value, "iteration": iteration}
        self.trainer.checkpointer.save_weights(name, best=best)
