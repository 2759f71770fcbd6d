"""HTC on the toy scenes, from scratch, in minutes on two CPU cores. `make demo` trains it."""

from ..common.data.toy_scenes import dataloader
from ..common.models.htc_fpn import model
from ..common.models.toy import make_toy
from ..common.toy_schedule import lr_multiplier, optimizer, train

make_toy(model)
