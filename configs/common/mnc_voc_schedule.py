"""MNC's schedule on VOC, 8 images a step: learning rate 0.001 for 32k steps, then 0.0001 for 8k."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from fvcore.common.param_scheduler import MultiStepParamScheduler

from .train import train

train.max_iter = 40000
optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.001
optimizer.weight_decay = 0.0005
optimizer.params.base_lr = "${..lr}"
optimizer.params.bias_lr_factor = 2.0
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[32000, 40000])
