"""What a complete training leaves beside its weights."""

import os

from detectron2.engine.hooks import HookBase
from detectron2.utils import comm

from ...visualization import plot_training_curves
from ..evaluation import draw_results


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
        model = trainer.evaluated_model
        draw_results(trainer.run_config.cfg, getattr(model, "module", model))
