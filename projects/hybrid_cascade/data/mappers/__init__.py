"""Dataset mappers: from a dataset dict to the input of a model."""

from .box_aware import BoxAwareMapper
from .copy_paste import CopyPasteMapper
from .partial_masks import PartialMasksMapper
from .skip_unreadable import SkipUnreadable
from .train import build_train_mapper

__all__ = [
    "BoxAwareMapper",
    "CopyPasteMapper",
    "PartialMasksMapper",
    "SkipUnreadable",
    "build_train_mapper",
]
