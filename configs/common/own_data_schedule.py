"""Detectron2's "1x" schedule, stretched to the number of the user's images (docs/own_data.md)."""

from .coco_1x import lr_multiplier, optimizer, train

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.output_dir = "./output/own_data"
train.max_iter = train.eval_period = train.checkpointer.period = "auto"
train.checkpointer.max_to_keep = 2
train.clip_gradients.enabled = True

optimizer.lr = "auto"
# The learning rate drops at 2/3 and 8/9 of the training, however long it is.
lr_multiplier.warmup_length = "auto"
