"""COCO's boxes with SSD's augmentation: colors, zoom out, crop, flip. The model resizes images.

The numbers are those of torchvision's recipe for SSD300. There are two differences: the hue stays,
since Detectron2 has no augmentation for it, and a crop keeps a box if any part of it is inside,
where torchvision requires its center.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from hybrid_cascade.data import BoxAwareMapper, ZoomOut

from .coco import dataloader

mapper = dataloader.train.mapper
mapper._target_ = BoxAwareMapper
mapper.use_instance_mask = False
mapper.augmentations = [
    L(T.RandomApply)(tfm_or_aug=L(T.RandomBrightness)(intensity_min=0.875, intensity_max=1.125)),
    L(T.RandomApply)(tfm_or_aug=L(T.RandomContrast)(intensity_min=0.5, intensity_max=1.5)),
    L(T.RandomApply)(tfm_or_aug=L(T.RandomSaturation)(intensity_min=0.5, intensity_max=1.5)),
    L(T.RandomApply)(tfm_or_aug=L(ZoomOut)(max_ratio=4.0)),
    L(T.MinIoURandomCrop)(min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.train.total_batch_size = 32
dataloader.test.mapper.augmentations = []
