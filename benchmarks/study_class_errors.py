"""What objects are taken for: in the toy scenes, outline and surroundings together make a class.

A ball that is called a buoy had its outline recognized and its surroundings not. A ball that is
called a tent had its outline mistaken.
"""

from collections import Counter, defaultdict

import numpy as np
import pycocotools.mask as mask_util

from hybrid_cascade.data.toy_scenes.classes import OUTLINES, THING_CLASSES

MIN_IOU = 0.5


def class_errors(annotations: list[dict], results: list[dict]) -> dict[str, float]:
    """Return what the objects are taken for, in percent of all that are not crowds.

    An object is taken for the class of the detection that has the highest score, of those whose
    boxes have an IoU of 0.5 with it.

    Args:
        annotations: the ground truth of toy scenes, in COCO's format.
        results: detections in COCO's format.

    Returns:
        "right"; "surroundings", the outline is right and the class is not; "outline"; "missed".
    """
    objects, detections = defaultdict(list), defaultdict(list)
    for annotation in annotations:
        if not annotation["iscrowd"]:
            objects[annotation["image_id"]].append(annotation)
    for detection in results:
        detections[detection["image_id"]].append(detection)
    counts = Counter(
        kind
        for image_id, of_image in objects.items()
        for kind in _of_image(of_image, detections[image_id])
    )
    return {
        kind: round(100 * counts[kind] / counts.total(), 2)
        for kind in ("right", "surroundings", "outline", "missed")
    }


def _of_image(objects: list[dict], detections: list[dict]) -> list[str]:
    """Return the kind of each object of an image."""
    if not detections:
        return ["missed"] * len(objects)
    boxes = [np.array([x["bbox"] for x in side], float) for side in (detections, objects)]
    overlaps = mask_util.iou(*boxes, [0] * len(objects)) >= MIN_IOU  # (detections, objects)
    scores = np.where(overlaps, np.array([x["score"] for x in detections])[:, None], -1)
    return [
        kind_of_error(thing["category_id"] - 1, detections[best]["category_id"] - 1)
        if overlaps[best, number]
        else "missed"
        for number, (thing, best) in enumerate(zip(objects, scores.argmax(axis=0), strict=True))
    ]


def kind_of_error(label: int, found: int) -> str:
    """Return "right", "surroundings" or "outline", for a label of a thing and what it is taken for.

    Both are positions in `THING_CLASSES`.
    """
    if label == found:
        return "right"
    outlines = {OUTLINES[THING_CLASSES[x]] for x in (label, found)}
    return "surroundings" if len(outlines) == 1 else "outline"
