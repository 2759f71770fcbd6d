"""The augmentation of DETR, with which Swin's and ConvNeXt's Cascade Mask R-CNN are trained."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import DictConfig

_SHORT_SIDES = tuple(range(480, 801, 32))


def multi_scale_crop() -> list[DictConfig]:
    """Return augmentations: crop half of the images, then resize all to 480 to 800 pixels.

    Before the crop, which has 384 to 600 pixels a side, images are resized to short sides of 400 to
    600. Cropping polygons needs shapely.
    """
    crop = L(T.AugmentationList)(
        augs=[
            _resize((400, 500, 600)),
            L(T.RandomCrop)(crop_type="absolute_range", crop_size=(384, 600)),
        ]
    )
    return [
        L(T.RandomFlip)(horizontal=True),
        L(T.RandomApply)(tfm_or_aug=crop, prob=0.5),
        _resize(_SHORT_SIDES),
    ]


def _resize(short_sides: tuple[int, ...]) -> DictConfig:
    return L(T.ResizeShortestEdge)(
        short_edge_length=short_sides, max_size=1333, sample_style="choice"
    )
