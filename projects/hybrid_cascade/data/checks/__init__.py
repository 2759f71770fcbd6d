"""Find what is wrong with a dataset before the first training iteration.

Most mistakes in a dataset (a category too many, a label map of another size, a folder that was
moved) appear as an index error in a loss, hours into a training or only on a GPU, or not at all.
`check_coco_file` finds them in a file of annotations in COCO's format, and `check_dataset` in the
loaded dataset dicts. Both read every annotation once, and their errors name all mistakes by kind,
each with the file, the key, the value, and what to do.
"""

from .class_names import check_same_classes
from .coco_file import check_coco_file, has_coco_file
from .dataset import check_dataset
from .image_files import READ_ERRORS
from .report import DatasetError
from .training import check_training_labels, has_mask

__all__ = [
    "READ_ERRORS",
    "DatasetError",
    "check_coco_file",
    "check_dataset",
    "check_same_classes",
    "check_training_labels",
    "has_coco_file",
    "has_mask",
]
