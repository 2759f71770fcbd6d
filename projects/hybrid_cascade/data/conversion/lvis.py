"""Turn LVIS's JSON into COCO's: it lacks the names of the files and `iscrowd`."""

from typing import Any

from ..checks import DatasetError
from ..checks.numbers import short


def lvis_to_coco(content: dict[str, list], place: str) -> dict[str, list]:
    """Return a copy with `file_name` (as "train2017/000000000009.jpg") and `iscrowd`.

    Which classes were looked for in an image (`neg_category_ids`, `not_exhaustive_category_ids`) is
    no part of COCO's format: COCO's figures differ from those of LVIS's own evaluation.

    Args:
        content: the lists of the file.
        place: the name of the file, for error messages.

    Raises:
        DatasetError: for images without a name or an address, and for records that are no dicts.
    """
    try:
        categories = [{"id": c["id"], "name": c["name"]} for c in content["categories"]]
        images = [{"file_name": _file_name(x, place), **x} for x in content["images"]]
        annotations = [{"iscrowd": 0, **x} for x in content.get("annotations", ())]
    except (AttributeError, KeyError, TypeError) as error:
        raise DatasetError(f"{place} is not in LVIS's format: {error!r}") from error
    return {"images": images, "annotations": annotations, "categories": categories}


def _file_name(image: dict[str, Any], place: str) -> str:
    if isinstance(image.get("file_name"), str):
        return image["file_name"]
    parts = str(image.get("coco_url", "")).split("/")
    if len(parts) < 2 or not all(parts[-2:]):
        raise DatasetError(
            f"{place}: the image with `id` {short(image.get('id'))} has neither `file_name` nor "
            "`coco_url`"
        )
    return "/".join(parts[-2:])
