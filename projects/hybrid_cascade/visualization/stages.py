"""The detections of a model after each of its stages, and its semantic prediction."""

import math

import torch
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import nn

from ..modeling import SemanticRCNN
from ..modeling.inference_steps import (
    check_eval_mode,
    extract_features,
    propose,
    resize_semantic_logits,
)

# Models with other methods, such as those of ensembles, may do more than the steps.
METHODS_OF_STEPS = (GeneralizedRCNN.inference, SemanticRCNN.inference, PanopticFPN.inference)


def find_stages(model: nn.Module) -> list[int | None]:
    """List the stages, counted from 1, after which a model can stop; [None] without stages."""
    heads = getattr(model, "roi_heads", None)
    if not _has_steps(model) or not hasattr(heads, "test_stage_choices"):
        return [None]
    return list(heads.test_stage_choices)


def stage_title(model: nn.Module, stage: int | None) -> str:
    """Return the title of what is found after a stage: "after stage 2 (IoU 0.6)"."""
    if stage is None:
        return "detections"
    title = f"after stage {stage}"
    matchers = getattr(model.roi_heads, "proposal_matchers", [])
    if stage <= len(matchers):
        # A matcher pads its thresholds with -inf and inf.
        ious = [f"{t:g}" for t in matchers[stage - 1].thresholds if math.isfinite(t)]
        title += f" (IoU {'/'.join(ious)})"
    return title


@torch.no_grad()
def detect_after_stages(
    model: nn.Module, batched_input: dict, stages: list[int | None]
) -> tuple[list[Instances], torch.Tensor | None]:
    """Detect in one image with the ROI heads stopped after each of some stages.

    Features and proposals are computed once.

    Args:
        model: in eval mode. A `GeneralizedRCNN` or another model with its interface.
        batched_input: one input of the model, with "height" and "width" of the output, H and W.
        stages: see `find_stages`.

    Returns:
        The detections after each stage at output size, and the semantic prediction: (H, W) int64
        labels, or None if the model predicts none.

    Raises:
        ValueError: if the model is in training mode.
    """
    check_eval_mode(model)
    if not _has_steps(model):
        [output] = model([batched_input])
        logits = output.get("sem_seg")
        return [output["instances"]], None if logits is None else logits.argmax(dim=0)
    size = batched_input["height"], batched_input["width"]
    images = model.preprocess_image([batched_input])
    features, logits = extract_features(model, images)
    proposals, _ = propose(model, images, features, [batched_input])
    of_stages = []
    for stage in stages:
        if stage is None:
            [instances], _ = model.roi_heads(images, features, proposals)
        else:
            [instances] = model.roi_heads.detect(features, proposals, test_stages=stage)
        of_stages.append(detector_postprocess(instances, *size))
    if logits is None:
        return of_stages, None
    branch = getattr(model, "semantic_branch", None)  # Detectron2's PanopticFPN has none
    [logits] = resize_semantic_logits(branch, logits, images, [size])
    return of_stages, logits.argmax(dim=0)


def _has_steps(model: nn.Module) -> bool:
    return getattr(type(model), "inference", None) in METHODS_OF_STEPS
