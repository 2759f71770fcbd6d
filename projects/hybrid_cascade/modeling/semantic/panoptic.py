"""Panoptic output: detected instances and the stuff of a semantic map, without overlaps.

Shapes: D detections of an image, (H, W) its output size.
"""

from collections.abc import Sequence

import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances


def merge_instances_and_stuff(
    instances: Instances,
    labels: torch.Tensor,
    stuff_labels: Sequence[int],
    *,
    overlap_thresh: float,
    stuff_area_thresh: int,
    instances_score_thresh: float,
) -> tuple[torch.Tensor, list[dict]]:
    """The heuristic of Panoptic FPN (arXiv 1901.02446, section 4) for label maps of any numbering.

    Detectron2's function takes label 0 as that of all things. Here any labels can be things,
    background or unlabelled: those that are not in `stuff_labels`. Where the map has one of them
    and no instance is, the result has no segment.

    Args:
        instances: D detections with "scores", "pred_classes" and "pred_masks", (D, H, W) bool.
        labels: (H, W) int64, the semantic class of each pixel.
        stuff_labels: the semantic classes that are stuff.
        overlap_thresh: as the other two, see `SemanticRCNN`.

    Returns:
        (H, W) int32, the id of each pixel's segment, 0 for none; and a dict for each segment with
        "id", "isthing" and "category_id", which is an instance class of things and a semantic class
        of stuff. Things have "score" and "instance_id" too, stuff has "area".
    """
    is_stuff = torch.isin(labels, torch.tensor(list(stuff_labels), device=labels.device))
    panoptic_seg, segments_info = combine_semantic_and_instance_outputs(
        instances,
        torch.where(is_stuff, labels + 1, 0),
        overlap_thresh,
        stuff_area_thresh,
        instances_score_thresh,
    )
    for segment in segments_info:
        if not segment["isthing"]:
            segment["category_id"] -= 1
    return panoptic_seg, segments_info
