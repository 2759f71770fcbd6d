"""Cascade R-CNN with a ResNet-50-FPN on your own data: boxes only, whether there are masks or not.

    ./train_net.py --config-file configs/own_data/cascade_rcnn_r50_fpn.py \\
        data.train=train.json data.train_images=train/ data.val=val.json data.val_images=val/

The files are in COCO's format. What is "auto" is computed from them when the config is loaded,
unless the command line has another value (docs/own_data.md).
"""

from ..common.data.own_data import data, dataloader
from ..common.models.cascade_rcnn_fpn import model
from ..common.own_data_schedule import lr_multiplier, optimizer, train

model.roi_heads.num_classes = "auto"
dataloader.train.mapper.use_instance_mask = False
