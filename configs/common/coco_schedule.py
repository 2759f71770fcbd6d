"""Schedules in epochs of COCO, which has 118,287 training images."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler


def coco_schedule(
    epochs: int, drops: tuple[int, int], warmup_steps: int, images_per_step: int = 16
) -> tuple:
    """Return `train.max_iter` and `lr_multiplier`.

    Args:
        epochs: the length of the training.
        drops: the epochs after which the learning rate is divided by ten.
        warmup_steps: the number of steps in which it rises from a thousandth of its value.
        images_per_step: the images of a step, of all GPUs together.
    """
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


# With 16 images a step.
max_iter_20e, lr_multiplier_20e = coco_schedule(epochs=20, drops=(16, 19), warmup_steps=500)
# "3x" as in the papers of Swin and MViTv2.
max_iter_3x, lr_multiplier_3x = coco_schedule(epochs=36, drops=(27, 33), warmup_steps=1000)
