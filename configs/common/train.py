"""Detectron2's `train` section and the options that this project adds, with their defaults."""

from detectron2.model_zoo import get_config

train = get_config("common/train.py").train
train.seed = -1
train.clip_gradients = dict(enabled=False, clip_type="norm", clip_value=35.0, norm_type=2.0)
train.num_panels = 6
train.report = dict(enabled=True, images=24, stage_images=100)
train.evaluate_sem_seg = False
train.channels_last = None  # None: True on CPUs, False on GPUs
train.inference = dict(dtype="float32", fuse_layers=True)  # or "bfloat16", "auto"
train.test_time = dict(checkpoints=[], short_sides=[], max_size=1333, flip=False)
train.check_images = "headers"  # or "decode": read all pixels before the first iteration
train.data_faults = "stop"  # or "warn": faults in annotations and images
train.max_unreadable_images = 10  # that are skipped in a training, of each process
train.freeze = []  # modules that are not trained, such as "backbone" and "roi_heads.mask_head"
train.losses = []  # names of the losses to train on, such as "loss_rpn_*"; []: all
