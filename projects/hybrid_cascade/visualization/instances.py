"""Draw the detections or the annotations of an image onto it.

Shapes: D detections, (H, W) the size of the image as drawn.
"""

import copy

import numpy as np
from detectron2.data import Metadata, transforms
from detectron2.data.detection_utils import transform_instance_annotations
from detectron2.structures import Instances, polygons_to_bitmask
from detectron2.utils.visualizer import VisImage, Visualizer

from .class_colors import thing_color, thing_name

MASK_ALPHA = 0.4
CROWDED_FROM = 12  # from so many objects in an image, labels are smaller
STRIPE_WIDTH = 6  # of crowd regions, in pixels


def draw_detections(image: np.ndarray, instances: Instances, metadata: Metadata) -> np.ndarray:
    """Draw boxes, class names, scores and, if there are any, masks.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: D detections of the size of the image, on the CPU.
        metadata: see `draw_cascade_panel`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = Visualizer(image, metadata)
    classes, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    canvas.overlay_instances(
        boxes=instances.pred_boxes,
        masks=instances.pred_masks if instances.has("pred_masks") else None,
        labels=[f"{thing_name(c, metadata)} {s:.2f}" for c, s in zip(classes, scores, strict=True)],
        assigned_colors=[thing_color(c, metadata) for c in classes],
        alpha=MASK_ALPHA,
    )
    return render(canvas.output)


def draw_note(image: np.ndarray, text: str) -> np.ndarray:
    """Write a line of text onto an (H, W, 3) uint8 RGB image, at its top."""
    canvas = Visualizer(image)
    canvas.draw_text(text, (image.shape[1] / 2, 4), color="w")
    return render(canvas.output)


def draw_annotations(
    image: np.ndarray, dataset_dict: dict, resize: transforms.Transform, metadata: Metadata
) -> np.ndarray:
    """Draw the annotations of a dataset dict; crowd regions are striped instead of outlined.

    Args:
        image: (H, W, 3) uint8 RGB.
        dataset_dict: in Detectron2's format. It is not changed.
        resize: maps the size of the annotations to that of the image.
        metadata: see `draw_cascade_panel`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = Visualizer(image, metadata)
    size = image.shape[:2]
    boxes, masks, classes = [], [], []
    for annotation in dataset_dict.get("annotations", []):
        annotation = transform_instance_annotations(copy.deepcopy(annotation), resize, size)
        if annotation.get("iscrowd", 0):
            _draw_crowd(canvas, annotation, size, metadata)
            continue
        boxes.append(annotation["bbox"])
        masks.append(annotation.get("segmentation", []))
        classes.append(annotation["category_id"])
    if boxes:
        canvas.overlay_instances(
            boxes=np.stack(boxes),
            masks=masks,
            labels=[thing_name(c, metadata) for c in classes],
            assigned_colors=[thing_color(c, metadata) for c in classes],
            alpha=MASK_ALPHA,
        )
    return render(canvas.output)


def _draw_crowd(
    canvas: Visualizer, annotation: dict, size: tuple[int, int], metadata: Metadata
) -> None:
    mask, category = annotation.get("segmentation", []), annotation["category_id"]
    if isinstance(mask, list):
        x0, y0, x1, y1 = annotation["bbox"]
        mask = polygons_to_bitmask(mask or [np.array([x0, y0, x1, y0, x1, y1, x0, y1])], *size)
    stripes = np.add.outer(*map(np.arange, size)) // STRIPE_WIDTH % 2
    canvas.draw_soft_mask(
        mask * (0.2 + 0.6 * stripes),
        color=thing_color(category, metadata),
        text=f"{thing_name(category, metadata)} (crowd)",
        alpha=1,
    )


def render(output: VisImage) -> np.ndarray:
    """Turn a drawing into (H, W, 3) uint8 RGB, with its labels inside the image and apart.

    Labels are placed in the order in which they were drawn, those of large objects first. A label
    for which no free place is found near its object is left out.
    """
    renderer = output.canvas.get_renderer()
    texts, taken = list(output.ax.texts), []
    for text in texts:
        text.set_fontsize(9 if len(texts) <= CROWDED_FROM else 7)
        extent = text.get_window_extent(renderer)  # pixels, y upwards; positions have y downwards
        inside = extent.translated(max(min(0, output.width - extent.x1), -extent.x0), 0)
        lines = (inside.translated(0, n * (inside.height + 3)) for n in (0, -1, 1, -2, 2))
        for line in lines:
            if line.y0 >= 0 and line.y1 <= output.height and not line.count_overlaps(taken):
                taken.append(line)
                x, y = text.get_position()
                text.set_position((x + line.x0 - extent.x0, y - (line.y0 - extent.y0)))
                break
        else:
            text.remove()
    return output.get_image()
