"""Simple Copy-Paste (arXiv 2012.07177), which any data loader of these configs can use."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from hybrid_cascade.data import CopyPasteMapper


def use_copy_paste(dataloader: DictConfig) -> None:
    """Paste instances of other training images into each image, after the same augmentation."""
    train = dataloader.train
    train.mapper = L(CopyPasteMapper)(mapper=train.mapper, dataset="${..dataset}")
    dataloader.test.mapper.image_format = "${...train.mapper.mapper.image_format}"
