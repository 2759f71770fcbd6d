"""HTC with a ResNet-50-FPN on your own data with masks, with label maps painted from the masks.

    ./train_net.py --config-file configs/own_data/htc_r50_fpn.py \\
        data.train=train.json data.train_images=train/ data.val=val.json data.val_images=val/

The files are in COCO's format. What is "auto" is computed from them when the config is loaded,
unless the command line has another value (docs/own_data.md).
"""

from hybrid_cascade import use_semantic_branch

from ..common.data.own_data import data, dataloader
from ..common.models.htc_without_semantic_fpn import model
from ..common.own_data_schedule import lr_multiplier, optimizer, train

model.roi_heads.num_classes = "auto"
use_semantic_branch(model, num_classes="auto", source="instances")
model.semantic_branch.loss_mean = "all"
model.semantic_branch.label_sampling = "corner"
