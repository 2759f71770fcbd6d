"""An image of the page: its picture, its objects, and its detections after each stage."""

from dataclasses import dataclass
from typing import Any

from .error_kinds import ImageErrors, as_rle
from .pictures import image_uri, mask_path
from .results import Results

MIN_SCORE = 0.05  # detections with lower scores are not on the page
MAX_DETECTIONS = 40  # of an image in a frame, the best


@dataclass
class Frame:
    """A position of the slider: the detections in an image after a stage.

    Attributes:
        title: of the stage.
        results: which the indices of `errors` refer to.
        errors: the detections and what is wrong with them.
    """

    title: str
    results: Results
    errors: ImageErrors


def describe_image(
    image: dict, file: str | None, frames: list[Frame], category_ids: list[int]
) -> dict[str, Any]:
    """Return all that the page shows of an image.

    Args:
        image: COCO's dict.
        file: the path of the image, if there is one.
        frames: of the slider; the last are the results.
        category_ids: of all classes; the page names a class by its place in them.

    Returns:
        Plain values. Boxes are [x, y, width, height] in pixels, masks the paths of an SVG.
    """
    place = {category_id: k for k, category_id in enumerate(category_ids)}
    picture = image_uri(file)
    uri, size = picture or (None, (0, 0))
    size = [image.get(key) or found for key, found in zip(("width", "height"), size, strict=True)]
    last = frames[-1].errors
    objects = []
    for g, annotation in enumerate(last.objects):
        objects.append(
            {
                "class": place[annotation["category_id"]],
                "box": _rounded(annotation["bbox"]) if "bbox" in annotation else None,
                "path": _path(annotation, image),
                "crowd": bool(annotation.get("iscrowd")),
                # The score with which each stage finds it; 0: it does not.
                "found": [round(float(frame.errors.found[g]), 3) for frame in frames],
            }
        )
    return {
        "file": str(image.get("file_name", "")),
        "width": size[0],
        "height": size[1],
        "uri": uri,
        "objects": objects,
        "frames": [_describe_frame(frame, image, place) for frame in frames],
    }


def _describe_frame(frame: Frame, image: dict, place: dict[int, int]) -> dict[str, Any]:
    detections, errors = [], frame.errors
    for index, kind, iou in zip(errors.detections, errors.kinds, errors.ious, strict=True):
        detection = frame.results.detections[index]
        if detection["score"] < MIN_SCORE or len(detections) == MAX_DETECTIONS:
            break  # they are sorted
        detections.append(
            {
                "class": place[detection["category_id"]],
                "score": round(float(detection["score"]), 3),
                "box": _rounded(detection["bbox"]) if "bbox" in detection else None,
                "path": _path(detection, image),
                "kind": kind,
                "iou": round(float(iou), 2),
            }
        )
    left_out = len(errors.detections) - len(detections)
    return {"title": frame.title, "detections": detections, "left_out": left_out}


def _path(shape: dict, image: dict) -> str:
    if not shape.get("segmentation"):
        return ""
    return mask_path(as_rle(shape["segmentation"], (image.get("height", 0), image.get("width", 0))))


def _rounded(box: list[float]) -> list[float]:
    return [round(float(x), 1) for x in box]
