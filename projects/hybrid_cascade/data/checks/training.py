"""Check that images to train on have the labels that a model needs."""

import logging
from collections.abc import Sequence

from .numbers import short
from .report import DatasetError, Kind, Report

logger = logging.getLogger(__name__)

NO_LABELS = Kind(
    "images without instance labels",
    "`annotations` may be an empty list. Only a model with a semantic branch learns from images "
    "without instance labels, if they have label maps (`sem_seg_file_name`).",
)
NO_MASK = Kind(
    "instances without a mask",
    "The model's ROI heads need masks of all instances. `HTCROIHeads` and `MNCROIHeads` leave "
    "instances without a mask out of their mask losses.",
)
RUN_LENGTHS = Kind(
    "masks (RLE) for a mapper that reads polygons",
    "Set `dataloader.train.mapper.instance_mask_format=bitmask` (INPUT.MASK_FORMAT bitmask), which "
    "reads polygons too.",
)


def check_training_labels(
    dataset_dicts: Sequence[dict],
    dataset_name: str,
    *,
    masks: str = "none",
    mask_format: str = "bitmask",
    reads_label_maps: bool = False,
) -> None:
    """Raise `DatasetError` if images to train on lack labels that the model can't do without.

    Args:
        dataset_dicts: as for `check_dataset`.
        dataset_name: as for `check_dataset`.
        masks: what the model needs of "segmentation". "none": nothing; "some": masks of some
            instances, and it leaves out the others; "all": those of all.
        mask_format: what the mapper makes of masks, "polygon" or "bitmask". Run lengths can't
            become polygons.
        reads_label_maps: whether the model has a semantic branch that reads label maps, and so
            learns from images without "annotations" too.

    Raises:
        DatasetError: names the images, and says what to do.
    """
    where = f"Dataset '{dataset_name}'"
    report = Report(where)
    num_instances = num_masks = 0
    for image in dataset_dicts:
        if "annotations" not in image and not (reads_label_maps and "sem_seg_file_name" in image):
            report.add(NO_LABELS, f"image {short(image.get('file_name'))} has no `annotations`")
        for index, annotation in enumerate(image.get("annotations", ())):
            if annotation.get("iscrowd", 0):
                continue
            num_instances += 1
            if has_mask(annotation):
                num_masks += 1
                if (
                    masks != "none"
                    and mask_format == "polygon"
                    and isinstance(annotation["segmentation"], dict)
                ):
                    report.add(RUN_LENGTHS, f"{_place(index, image)} has a `segmentation` (RLE)")
            elif masks == "all":
                report.add(NO_MASK, f"{_place(index, image)} has no `segmentation`")
    report.close()
    if masks == "some" and num_instances > 0 and num_masks == 0:
        raise DatasetError(
            f"{where}: none of the {num_instances} instances has a `segmentation`, and the model "
            "has masks to train. Add masks, or take a model without mask heads."
        )
    if masks == "some" and num_masks < num_instances:
        logger.info("%s: %d of %d instances have masks.", where, num_masks, num_instances)


def _place(index: int, image: dict) -> str:
    return f"annotation {index} of image {short(image.get('file_name'))}"


def has_mask(annotation: dict) -> bool:
    """Tell whether an annotation in Detectron2's format has a mask of any kind."""
    segmentation = annotation.get("segmentation")
    return segmentation is not None and len(segmentation) > 0
