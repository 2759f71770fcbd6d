"""One picture for each image of what every stage of a cascade finds.

The first row holds the ground truth and the detections after each stage, the second the semantic
maps and their legend.
"""

import cv2
import numpy as np
from detectron2.data import Metadata, transforms
from detectron2.data.detection_utils import convert_image_to_rgb, read_image
from detectron2.structures import Instances
from torch import nn

from .class_colors import thing_name
from .instances import draw_annotations, draw_detections, draw_note
from .layout import compose, resize_to_tile, tile_size
from .sem_seg import draw_sem_seg, make_legend, paint_targets, semantic_names
from .stages import detect_after_stages, find_stages, stage_title

SEMANTIC_COLUMNS = 3  # prediction, ground truth and legend


def draw_cascade_panel(
    model: nn.Module,
    batched_input: dict,
    metadata: Metadata,
    *,
    ground_truth: dict | None = None,
    score_thresh: float = 0.5,
) -> np.ndarray:
    """Draw the detections after every stage, the semantic prediction and the ground truth.

    Args:
        model: a `GeneralizedRCNN`, or another model with its interface, in eval mode. ROI heads
            without `test_stage_choices` get a single tile "detections"; the second row exists if
            the model or the ground truth has a semantic map.
        batched_input: one input of the model: "image", (channels, height, width) in
            `model.input_format`, and "height", "width" if the original size differs.
        metadata: class names `thing_classes`, their `thing_colors`, names of semantic labels
            `stuff_classes`, their `stuff_colors`, and `ignore_label` (default 255). Generic names
            and colours replace missing ones. For a model that learns from label maps painted from
            instances, the semantic labels have the names of the instance classes.
        ground_truth: a dataset dict of the same image in its original size. Its label map is drawn,
            or the one that a model learns from whose maps are painted from instances.
        score_thresh: detections with lower scores, in [0, 1], are left out. A tile without any says
            so.

    Returns:
        (H, W, 3) uint8 RGB; small images are enlarged, large ones reduced.

    Raises:
        ValueError: if the model is in training mode.
    """
    image = convert_image_to_rgb(batched_input["image"].permute(1, 2, 0), model.input_format)
    full_size = [batched_input.get(k, image.shape[i]) for i, k in enumerate(("height", "width"))]
    stages = find_stages(model)
    columns = max(len(stages) + (ground_truth is not None), SEMANTIC_COLUMNS)
    size = tile_size(*full_size, columns)
    image = resize_to_tile(image, size)
    # Boxes, masks and logits are resized from the network to the size of the tile in one go.
    resized_input = {**batched_input, "height": size[0], "width": size[1]}
    detections, prediction = detect_after_stages(model, resized_input, stages)

    instance_tiles, sem_segs = [], {}
    if ground_truth is not None:
        resize = transforms.ResizeTransform(*full_size, *size)
        tile = draw_annotations(image, ground_truth, resize, metadata)
        instance_tiles.append(("ground truth", tile))
    for stage, instances in zip(stages, detections, strict=True):
        instances = instances.to("cpu")
        shown = instances[instances.scores >= score_thresh]
        tile = draw_detections(image, shown, metadata)
        if not len(shown):
            tile = draw_note(tile, _note_on_scores(instances, score_thresh, metadata))
        instance_tiles.append((stage_title(model, stage), tile))
    if prediction is not None:
        sem_segs["semantic prediction"] = prediction.cpu().numpy()
    painted = None
    if ground_truth is not None:
        painted = paint_targets(model, ground_truth, resize, size)
    if painted is not None:
        sem_segs["semantic targets (painted)"] = painted
    elif ground_truth is not None and "sem_seg_file_name" in ground_truth:
        sem_seg = read_image(ground_truth["sem_seg_file_name"])
        sem_seg = cv2.resize(sem_seg, size[::-1], interpolation=cv2.INTER_NEAREST)
        sem_segs["semantic ground truth"] = sem_seg
    legend = make_legend([*sem_segs.values()], semantic_names(model, metadata), metadata)
    semantic_tiles = [(title, draw_sem_seg(image, s, legend)) for title, s in sem_segs.items()]
    return compose([instance_tiles, semantic_tiles], list(legend.values()))


def _note_on_scores(instances: Instances, score_thresh: float, metadata: Metadata) -> str:
    if not len(instances):
        return "nothing found"
    best = instances[instances.scores.argmax().reshape(1)]
    name = thing_name(best.pred_classes.item(), metadata)
    return f"no score of {score_thresh:g} or more; best: {name} {best.scores.item():.2g}"
