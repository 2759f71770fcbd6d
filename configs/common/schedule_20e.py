"""20 epochs of COCO with 16 images a step: 118,287 images are 7,393 steps an epoch."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

STEPS_PER_EPOCH = 7393
max_iter = 20 * STEPS_PER_EPOCH
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01],
        milestones=[16 * STEPS_PER_EPOCH, 19 * STEPS_PER_EPOCH],
        num_updates=max_iter,
    ),
    warmup_length=500 / max_iter,
    warmup_factor=0.001,
)
