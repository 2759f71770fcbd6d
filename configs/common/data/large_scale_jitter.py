"""Large-scale jitter (arXiv 2012.07177): scales of 0.1 to 2 in a square of fixed size."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import DictConfig


def use_large_scale_jitter(dataloader: DictConfig, size: int = 1024, pad: bool = False) -> None:
    """Train on crops of at most `size` x `size`, and test on images that fit into them.

    With `pad`, smaller images fill the square already before the batch: their label maps with 255,
    which is ignored, and Copy-Paste then pastes into the padding too. It is not for data sets with
    run-length encoded instances, such as SBD, whose masks Detectron2 pads with ones.

    The box of an instance is that of the part of its mask that is left. Polygons are cropped with
    shapely.
    """
    mapper = dataloader.train.mapper
    mapper.augmentations = [
        L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=size, target_width=size),
        L(T.FixedSizeCrop)(crop_size=(size, size), pad=pad, seg_pad_value=255),
        L(T.RandomFlip)(horizontal=True),
    ]
    mapper.recompute_boxes = True
    dataloader.test.mapper.augmentations = [
        L(T.ResizeShortestEdge)(short_edge_length=size, max_size=size)
    ]
