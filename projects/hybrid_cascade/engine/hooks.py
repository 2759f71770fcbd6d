"""Hooks of a training."""

import os

from detectron2.engine.hooks import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..visualization import plot_training_curves
from .evaluation import draw_results


class SeedEachIteration(HookBase):
    """Make the random numbers of an iteration depend on the seed and its number only.

    A resumed run then draws the same numbers as a run without interruption, and ends with the same
    weights bit for bit. The random numbers of the images are `SeedEachSample`'s.
    """

    def __init__(self, seed: int):
        """
        Args:
            seed: of the run, 0 or more.
        """
        self.seed = seed

    def before_step(self) -> None:
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        seed_all_rng((self.seed + step) % 2**32)


class DrawResults(HookBase):
    """Draw curves and panels when a training is complete."""

    def after_train(self) -> None:
        trainer = self.trainer
        if trainer.iter + 1 < trainer.max_iter or not comm.is_main_process():
            return
        folder = trainer.cfg.OUTPUT_DIR
        plot_training_curves(
            os.path.join(folder, "metrics.json"), os.path.join(folder, "training_curves.png")
        )
        model = trainer.model
        draw_results(trainer.run_config.cfg, getattr(model, "module", model))
