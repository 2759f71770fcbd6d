"""Schedules counted in epochs of COCO's 118,287 training images."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler


def coco_schedule(
    epochs: int, drops: tuple[int, int], warmup_steps: int, images_per_step: int = 16
) -> tuple:
    """`train.max_iter` and `lr_multiplier`: a tenth of the rate after each epoch of `drops`."""
    steps_per_epoch = -(-118287 // images_per_step)
    max_iter = epochs * steps_per_epoch
    lr_multiplier = L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01],
            milestones=[epoch * steps_per_epoch for epoch in drops],
            num_updates=max_iter,
        ),
        warmup_length=warmup_steps / max_iter,
        warmup_factor=0.001,
    )
    return max_iter, lr_multiplier
