"""36 epochs of COCO with 16 images a step, as Swin's and MViTv2's "3x"; drops after 27 and 33."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from .schedule_20e import STEPS_PER_EPOCH

max_iter = 36 * STEPS_PER_EPOCH
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01],
        milestones=[27 * STEPS_PER_EPOCH, 33 * STEPS_PER_EPOCH],
        num_updates=max_iter,
    ),
    warmup_length=1000 / max_iter,
    warmup_factor=0.001,
)
