"""Count what a file of annotations in COCO's format has."""

import os
from dataclasses import dataclass

from ..checks import has_mask
from ..checks.coco_file import read_coco_file
from ..checks.numbers import is_id


@dataclass(frozen=True)
class CocoSummary:
    """What an annotation file has; crowd regions count as no instances.

    Attributes:
        num_images: all images.
        num_labelled_images: those with at least one instance.
        class_names: of all categories, in the order of their ids, as Detectron2 numbers them.
        num_instances: all instances.
        num_masks: those with a mask.
        num_run_lengths: those whose mask is run-length encoded.
    """

    num_images: int
    num_labelled_images: int
    class_names: list[str]
    num_instances: int
    num_masks: int
    num_run_lengths: int

    @property
    def num_classes(self) -> int:
        """The number of categories, with and without instances."""
        return len(self.class_names)


def summarize_coco_json(json_file: str | os.PathLike) -> CocoSummary:
    """Count the images, classes, instances and masks of an annotation file.

    Entries of the lists that are no dicts are left out; `check_coco_file` reports them.

    Raises:
        DatasetError: if the file is no JSON, or has no such lists.
    """
    content = read_coco_file(os.fspath(json_file), f"The annotation file '{json_file}'")
    images, categories, annotations = (
        [record for record in content.get(key, ()) if isinstance(record, dict)]
        for key in ("images", "categories", "annotations")
    )
    if all(is_id(category.get("id")) for category in categories):
        categories.sort(key=lambda category: category["id"])
    instances = [x for x in annotations if not x.get("iscrowd", 0)]
    known = {str(image.get("id")) for image in images}
    masks = [x["segmentation"] for x in instances if "segmentation" in x and has_mask(x)]
    return CocoSummary(
        num_images=len(images),
        num_labelled_images=len(known & {str(x.get("image_id")) for x in instances}),
        class_names=[category.get("name") for category in categories],
        num_instances=len(instances),
        num_masks=len(masks),
        num_run_lengths=sum(isinstance(mask, dict) for mask in masks),
    )
