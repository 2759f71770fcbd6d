"""Images and ground truth for detectors of different projects.

An image is a dict: "image", (3, H, W) uint8 RGB pixels, resized; "height" and "width" of the
original image, which are the output's. For training also, in pixels of the resized image, with G
instances: "boxes" (G, 4) XYXY, "classes" (G,), "polygons", a list of tensors for each, "bitmasks"
(G, H, W) uint8, and "sem_seg" (H, W), a label map in which the instances are painted.
"""

from pathlib import Path

import torch
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.data.detection_utils import (
    annotations_to_instances,
    read_image,
    transform_instance_annotations,
)
from detectron2.structures import BitMasks, Instances


def read_images(
    paths: list[str], short_edge: int, annotation_file: str | None = None
) -> list[dict]:
    """Read and resize images; those of similar shape stand together.

    Args:
        paths: of the images.
        short_edge: in pixels; the longer edge is at most 1333 / 800 of it.
        annotation_file: COCO's JSON with the instances; no ground truth if None.

    Raises:
        ValueError: if an image has no instance in the file.
    """
    annotations = {}
    if annotation_file:
        for record in load_coco_json(annotation_file, "", "benchmark_of_models"):
            instances = [a for a in record["annotations"] if not a["iscrowd"]]
            annotations[record["file_name"]] = instances
    resize = T.ResizeShortestEdge(short_edge, max_size=round(short_edge * 1333 / 800))
    images = []
    for path in paths:
        pixels = read_image(path, "RGB")
        transform = resize.get_transform(pixels)
        resized = torch.from_numpy(transform.apply_image(pixels).transpose(2, 0, 1).copy())
        image = {"image": resized, "height": pixels.shape[0], "width": pixels.shape[1]}
        if annotation_file:
            size = tuple(resized.shape[-2:])
            instances = annotations.get(Path(path).name)
            if not instances:
                raise ValueError(f"{annotation_file} has no instance in {Path(path).name}")
            instances = [transform_instance_annotations(a, [transform], size) for a in instances]
            image |= ground_truth(annotations_to_instances(instances, size))
        images.append(image)
    return sorted(images, key=lambda image: image["width"] / image["height"])


def ground_truth(instances: Instances) -> dict:
    """Return the ground truth of an image in the forms that the projects need."""
    masks = instances.gt_masks
    bitmasks = BitMasks.from_polygon_masks(masks, *instances.image_size).tensor
    sem_seg = torch.full(instances.image_size, 182)  # COCO's things and stuff, and nothing
    for bitmask, label in zip(bitmasks, instances.gt_classes, strict=True):
        sem_seg[bitmask] = label
    return {
        "boxes": instances.gt_boxes.tensor,
        "classes": instances.gt_classes,
        "polygons": [[torch.from_numpy(p) for p in polygons] for polygons in masks.polygons],
        "bitmasks": bitmasks.to(torch.uint8),
        "sem_seg": sem_seg,
    }
