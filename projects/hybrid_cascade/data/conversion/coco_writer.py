"""Make COCO's format of labelled images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..checks import DatasetError

Polygon = list[float]  # [x0, y0, x1, y1, ...] in pixels
DECIMALS = 2  # of coordinates, in pixels


@dataclass
class LabelledInstance:
    """An object.

    Attributes:
        label: the name of its class.
        box: [x1, y1, x2, y2] in pixels.
        mask: its outlines, or run lengths (RLE) of the size of the image; None if it has a box
            only.
        place: where it was read, for error messages.
    """

    label: str
    box: Sequence[float]
    mask: list[Polygon] | dict[str, Any] | None
    place: str


@dataclass
class LabelledImage:
    """An image with its objects; `file_name` is relative to the folder of the images."""

    file_name: str
    width: int
    height: int
    instances: list[LabelledInstance] = field(default_factory=list)


def to_coco(
    images: Iterable[LabelledImage], class_names: Sequence[str] | None = None
) -> dict[str, list]:
    """Return COCO's format, with ids that count from 1.

    Args:
        images: in the order that they shall have.
        class_names: in the order of the category ids. None: those that occur, sorted.

    Raises:
        DatasetError: for an object of another class.
    """
    images = list(images)
    if class_names is None:
        class_names = sorted({x.label for image in images for x in image.instances})
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    records, annotations = [], []
    for image_id, image in enumerate(images, start=1):
        size = {"width": image.width, "height": image.height}
        records.append({"id": image_id, "file_name": image.file_name, **size})
        for instance in image.instances:
            if instance.label not in ids:
                raise DatasetError(
                    f"{instance.place} has the class {instance.label!r}, which is none of "
                    f"{', '.join(class_names)}. Correct it, or the list of the classes."
                )
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[instance.label],
                    "iscrowd": 0,
                    **_shape(instance, image),
                }
            )
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": records, "annotations": annotations, "categories": categories}


def _shape(instance: LabelledInstance, image: LabelledImage) -> dict[str, Any]:
    """Return "bbox", "area" and, if there is a mask, "segmentation"."""
    x1, y1, x2, y2 = instance.box
    box = np.round([x1, y1, x2 - x1, y2 - y1], DECIMALS).tolist()
    if instance.mask is None:
        return {"bbox": box, "area": round(box[2] * box[3], DECIMALS)}
    runs = instance.mask
    if isinstance(runs, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(runs, image.height, image.width))
        mask = [np.round(polygon, DECIMALS).tolist() for polygon in instance.mask]
    else:
        mask = {"size": list(runs["size"]), "counts": runs["counts"].decode("ascii")}
    return {"bbox": box, "area": int(coco_mask.area(runs)), "segmentation": mask}


def split_coco(
    content: dict[str, list], fraction: float, seed: int = 0
) -> tuple[dict[str, list], dict[str, list]]:
    """Share the images of a file in COCO's format at random among two.

    Args:
        content: the lists of the file.
        fraction: of the images in the second part, in (0, 1). Each part has at least one.
        seed: another seed gives other parts.

    Returns:
        Both parts, with the ids and the order of the whole.

    Raises:
        DatasetError: if there are fewer than two images.
    """
    images = content["images"]
    if len(images) < 2:
        raise DatasetError(f"{len(images)} images can't be shared among two files")
    number = min(len(images) - 1, max(1, round(fraction * len(images))))
    chosen = np.random.default_rng(seed).permutation(len(images))[:number]
    ids = {images[i]["id"] for i in chosen}
    parts = []
    for is_second in (False, True):
        part = {
            "images": [x for x in images if (x["id"] in ids) == is_second],
            "annotations": [
                x for x in content["annotations"] if (x["image_id"] in ids) == is_second
            ],
        }
        parts.append({**content, **part})
    return parts[0], parts[1]
