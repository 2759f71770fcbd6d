"""The schedule of the quick-start configs: from scratch, in minutes on two CPU cores."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from .train import train

train.max_iter = 600
train.output_dir = "./output/quick_start"
train.seed = 1
train.clip_gradients.enabled = True
train.clip_gradients.clip_value = 5.0
train.checkpointer.period = 200
train.eval_period = 0  # at the end only

optimizer = get_config("common/optim.py").AdamW
optimizer.lr = 1e-3
optimizer.weight_decay = 0.01
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    warmup_length=0.1,
    warmup_factor=0.01,
)
