"""Ground truth and detections in COCO's formats, checked, with ids that any evaluator can take.

Letters: N images, K classes, D detections, G objects of the ground truth, each of all images.
"""

import json
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import hotcoco

NEEDED = ("image_id", "category_id", "score")


@dataclass
class Results:
    """Detections beside the ground truth.

    The ids of images and objects are made anew, 1, 2, ..., in the order of those in the files:
    ids may be texts there, and COCO's evaluation takes an object of id 0 for none.

    Attributes:
        images: N dicts of COCO, with "id" 1 to N; `image_ids[i]` is the id of `images[i]` in the
            file.
        image_ids: see above.
        categories: K dicts of COCO with "id" and "name".
        annotations: G dicts of COCO with "id" 1 to G.
        detections: D dicts of COCO's results; an evaluator numbers them 1 to D.
    """

    images: list[dict]
    image_ids: list[Any]
    categories: list[dict]
    annotations: list[dict]
    detections: list[dict]

    @classmethod
    def load(cls, annotations: str | os.PathLike, results: str | os.PathLike) -> "Results":
        """Read an annotation file and a file of results, both in COCO's format.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: for files that are none of these, and if results are of images or classes
                that the annotations do not have; names file and key.
        """
        dataset, detections = _read(annotations), _read(results)
        if not isinstance(dataset, dict) or not {"images", "categories"} <= dataset.keys():
            raise ValueError(
                f"{annotations} is no annotation file of COCO: it has to be an object with "
                '"images", "annotations" and "categories"'
            )
        if not isinstance(detections, list):
            raise ValueError(
                f"{results} is no results file of COCO: it has to be a list of detections, each "
                'with "image_id", "category_id", "bbox" and "score"'
            )
        try:
            return cls.from_coco(dataset, detections)
        except ValueError as error:
            raise ValueError(f"{results} (for {annotations}): {error}") from error

    @classmethod
    def from_coco(cls, dataset: dict, detections: Iterable[dict]) -> "Results":
        """Take what an annotation file and a results file hold; see `load`."""
        source = sorted(dataset["images"], key=lambda image: _order(image["id"]))
        new_ids = {image["id"]: index for index, image in enumerate(source, start=1)}
        categories = sorted(dataset["categories"], key=lambda category: category["id"])
        known = {category["id"] for category in categories}
        annotations = []
        for index, annotation in enumerate(dataset.get("annotations") or [], start=1):
            for key, values in (("image_id", new_ids), ("category_id", known)):
                if annotation.get(key) not in values:
                    raise ValueError(
                        f"the annotation of id {annotation.get('id')} has {key} "
                        f"{annotation.get(key)!r}, which its file does not have"
                    )
            of_image = {"id": index, "image_id": new_ids[annotation["image_id"]]}
            annotations.append({**annotation, **of_image})
        renamed = []
        for index, detection in enumerate(detections):
            missing = [key for key in NEEDED if key not in detection]
            if missing:
                raise ValueError(f"detection {index} lacks {missing}")
            _check_numbers(index, "score", [detection["score"]], 1)
            if "bbox" in detection or "segmentation" not in detection:
                _check_numbers(index, "bbox", detection.get("bbox"), 4)
            if detection["image_id"] not in new_ids:
                raise ValueError(
                    f"detection {index} is of image_id {detection['image_id']!r}, which the "
                    "annotations do not have: are they of another dataset?"
                )
            if detection["category_id"] not in known:
                raise ValueError(
                    f"detection {index} has category_id {detection['category_id']!r}, which the "
                    f"annotations do not have: they have {_few(sorted(known))}"
                )
            keys = ("category_id", "score", "bbox", "segmentation")
            kept = {key: detection[key] for key in keys if key in detection}
            renamed.append({"image_id": new_ids[detection["image_id"]], **kept})
        images = [{**image, "id": new_ids[image["id"]]} for image in source]
        return cls(images, [image["id"] for image in source], categories, annotations, renamed)

    @property
    def tasks(self) -> list[str]:
        """What can be measured: "bbox" and, if ground truth and detections have masks, "segm"."""
        has_masks = any(a.get("segmentation") for a in self.annotations)
        if has_masks and any("segmentation" in d for d in self.detections):
            return ["bbox", "segm"]
        return ["bbox"]

    @property
    def names(self) -> list[str]:
        """The names of the K classes, in the order of `categories`."""
        return [str(category.get("name", category["id"])) for category in self.categories]

    @cached_property
    def ground_truth(self) -> "hotcoco.COCO":
        """The ground truth as hotcoco takes it."""
        import hotcoco  # `build_report` says what to do where it is missing

        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
        return hotcoco.COCO(
            {
                "images": [
                    {"id": x["id"], "width": x.get("width", 0), "height": x.get("height", 0)}
                    for x in self.images
                ],
                "categories": [{"id": x["id"], "name": str(x["id"])} for x in self.categories],
                "annotations": [{k: a[k] for k in keys if k in a} for a in self.annotations],
            }
        )

    def of_images(
        self, ids: Collection[int], detections: Iterable[dict] | None = None
    ) -> "Results":
        """Return a part: the images of some of the new ids.

        Args:
            ids: of the images.
            detections: other ones, with "image_id" as in the file; None: those that there are.
        """
        ids = set(ids)

        def chosen(values: list[dict]) -> list[dict]:
            of_images = (x for x in values if x["image_id"] in ids)
            return [{**x, "image_id": self.image_ids[x["image_id"] - 1]} for x in of_images]

        dataset = {
            "images": [{**self.images[i - 1], "id": self.image_ids[i - 1]} for i in ids],
            "categories": self.categories,
            "annotations": chosen(self.annotations),
        }
        if detections is None:
            detections = chosen(self.detections)
        return type(self).from_coco(dataset, detections)


def _read(path: str | os.PathLike) -> Any:
    with open(path, "rb") as file:
        try:
            return json.load(file)
        except ValueError as error:  # of the JSON or its encoding
            raise ValueError(f"{path} is no JSON file: {error}") from error


def _check_numbers(index: int, key: str, values: Any, length: int) -> None:
    if (
        not isinstance(values, list)
        or len(values) != length
        or not all(isinstance(x, int | float) and math.isfinite(x) for x in values)
    ):
        what = "a finite number" if length == 1 else f"a list of {length} finite numbers"
        found = values[0] if length == 1 else values
        raise ValueError(f"{key} of detection {index} is {found!r}, but has to be {what}")


def _order(image_id: Any) -> tuple[bool, Any]:
    """Return a key that sorts numbers before texts."""
    return isinstance(image_id, str), image_id


def _few(values: list) -> str:
    shown = ", ".join(map(repr, values[:8]))
    return f"{shown}, ... ({len(values)})" if len(values) > 8 else shown or "none"
