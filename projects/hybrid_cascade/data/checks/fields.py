"""Numbers of an annotation: its crowd flag and its class."""

from .chunk import Chunk
from .numbers import is_integer, short
from .report import Kind

NUM_CLASSES_KEYS = (
    "`model.roi_heads.num_classes` / `MODEL.ROI_HEADS.NUM_CLASSES` (of an SSD, "
    "`model.num_classes` / `MODEL.SSD.NUM_CLASSES`)"
)

CROWD = Kind(
    "`iscrowd` of another kind than 0 and 1",
    "Set it to 1 for a region of many objects, which is not trained on, and to 0 for an object.",
)
NO_CROWD = Kind(
    "annotations without `iscrowd` in a dataset to evaluate on",
    "COCO's evaluation needs it: set it to 0, or to 1 for a region of many objects.",
)
CATEGORY = Kind(
    "`category_id` out of range",
    f"Either the category ids were not mapped to 0, 1, 2, ... or {NUM_CLASSES_KEYS} is too small.",
)


def check_crowd_flags(chunk: Chunk, *, needed: bool) -> None:
    """Report an "iscrowd" that is not 0, 1, True or False, and one that is missing if needed."""
    for index, annotation in enumerate(chunk.annotations):
        value = annotation.get("iscrowd", 0)
        if not (isinstance(value, bool) or is_integer(value)) or value not in (0, 1):
            chunk.add(CROWD, index, f"has `iscrowd` {short(value)}")
        elif needed and "iscrowd" not in annotation:
            chunk.add(NO_CROWD, index, "has no `iscrowd`")


def check_classes(chunk: Chunk, num_classes: int) -> None:
    """Report a "category_id" that is not in [0, num_classes)."""
    for index, annotation in enumerate(chunk.annotations):
        value = annotation.get("category_id")
        if not is_integer(value) or not 0 <= value < num_classes:
            what = f"has `category_id` {short(value)}, outside [0, {num_classes})"
            chunk.add(CATEGORY, index, what)
