"""Large-scale jitter (arXiv 2012.07177): scales of 0.1 to 2, cropped to a square of fixed size."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import DictConfig


def use_large_scale_jitter(dataloader: DictConfig, size: int = 1024, pad: bool = False) -> None:
    """Train on crops of at most `size` x `size` pixels, and test on images that fit into them.

    Boxes are those of the cropped masks. Cropping polygons needs shapely.

    Args:
        dataloader: the data loaders of a config, which are changed.
        size: the side of the square in pixels.
        pad: pad smaller images to the square, so that Copy-Paste can paste into the padding too.
            Semantic label maps are padded with 255, which is ignored. Not for datasets with
            run-length encoded instances, such as SBD: Detectron2 pads their masks with ones.
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
