"""Panoptic output: detected instances and the stuff of a semantic map, without overlaps.

Shapes: D detections of an image, (H, W) its output size.
"""

from collections.abc import Sequence

import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances


def merge_instances_and_stuff(
    instances: Instances,
    sem_seg: torch.Tensor,
    stuff_labels: Sequence[int],
    *,
    overlap_thresh: float,
    stuff_area_thresh: int,
    instances_score_thresh: float,
) -> tuple[torch.Tensor, list[dict]]:
    """Merge by the heuristic of Panoptic FPN (arXiv 1901.02446, Section 4), with any stuff labels.

    Detectron2's function takes label 0 as that of all things, and all others as stuff. Here all
    labels that are not in `stuff_labels` are things, background or unlabelled. A pixel that has one
    of these labels and lies in no instance has no segment.

    Args:
        instances: D detections with "scores", "pred_classes" and "pred_masks", (D, H, W) bool.
        sem_seg: (H, W) int64, the semantic class of each pixel.
        stuff_labels: the semantic classes that are stuff.
        overlap_thresh, stuff_area_thresh, instances_score_thresh: the `combine_` arguments of
            `SemanticRCNN`.

    Returns:
        (H, W) int32, the id of each pixel's segment, 0 for none; and a dict for each segment with
        "id", "isthing" and "category_id", which is the instance class of a thing or the semantic
        class of stuff. Things also have "score" and "instance_id", stuff has "area".
    """
    is_stuff = torch.isin(sem_seg, torch.tensor(list(stuff_labels), device=sem_seg.device))
    panoptic_seg, segments_info = combine_semantic_and_instance_outputs(
        instances,
        torch.where(is_stuff, sem_seg + 1, 0),
        overlap_thresh,
        stuff_area_thresh,
        instances_score_thresh,
    )
    for segment in segments_info:
        if not segment["isthing"]:
            segment["category_id"] -= 1
    return panoptic_seg, segments_info
