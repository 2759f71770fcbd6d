"""Detect with several views of an image and several models."""

import logging
from copy import deepcopy

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig
from torch import nn

from ..modeling import MNCROIHeads, RCNNEnsemble, RCNNWithTestTimeAugmentation, VotingEnsemble
from .build import build_model
from .checkpointer import load_weights
from .config_files import load_config
from .run_config import FurtherModel, InferenceOptions, RunConfig, as_run_config

logger = logging.getLogger(__name__)


def with_test_time_options(cfg: DictConfig | CfgNode, model: nn.Module) -> nn.Module:
    """Return a model with the views and further models of a config; the model itself without any.

    The options are `train.test_time` of a LazyConfig, TEST.AUG and TEST.CHECKPOINTS of a CfgNode.
    The models and views of MNC vote together on masks. The models of other R-CNNs are averaged
    within each view, and views as in Detectron2's `GeneralizedRCNNWithTTA`.

    A further model has the config of the first, or a config of its own, of either kind. All see the
    images that the data loader of the first config gives, and each normalizes and pads them itself.

    Raises:
        ValueError: if the detections of such models or views can't be combined.
        KeyError: for an override of a further model that does not exist.
        FileNotFoundError: for a config or a checkpoint that does not exist.
    """
    run_config = as_run_config(cfg)
    options = run_config.inference_options
    if not (options.models or options.has_views):
        return model
    _check_outputs(model)
    further = [_load_further_model(run_config, model, other) for other in options.models]
    try:
        return _combine([model, *further], options).eval()
    except ValueError as error:
        if not further:
            raise
        names = ", ".join(map(str, options.models))
        raise ValueError(f"{names} can't detect together with the first model: {error}") from error


def _combine(models: list[nn.Module], options: InferenceOptions) -> nn.Module:
    views = (options.short_sides, options.max_size, options.flip)
    if isinstance(getattr(models[0], "roi_heads", None), MNCROIHeads):
        return VotingEnsemble(models, *views)
    combined = RCNNEnsemble(models) if len(models) > 1 else models[0]
    return RCNNWithTestTimeAugmentation(combined, *views) if options.has_views else combined


def _load_further_model(run_config: RunConfig, first: nn.Module, other: FurtherModel) -> nn.Module:
    """Build a further model with its weights, on the device of the first."""
    if other.config_file is None:
        model = deepcopy(first)
    else:
        device = next(first.parameters()).device
        cfg = as_run_config(load_config(other.config_file, other.overrides))
        cfg = cfg.replaced(device=str(device), evaluates_sem_seg=False)
        _compare_data(run_config, cfg, other.config_file)
        model = build_model(cfg.cfg)
        _check_outputs(model)
    load_weights(model, other.weights)
    return model


def _check_outputs(model: nn.Module) -> None:
    for output in ("output_sem_seg", "output_panoptic_seg"):
        if getattr(model, output, False):
            raise ValueError(
                f"Test-time options combine instances only: set model.{output}=False, "
                "train.evaluate_sem_seg=False (TEST.EVALUATE_SEM_SEG False)"
            )


def _compare_data(first: RunConfig, other: RunConfig, config_file: str) -> None:
    """Raise a ValueError if the classes of two configs differ; log it if their test images do."""
    classes = [_thing_classes(x) for x in (first, other)]
    if None not in classes and classes[0] != classes[1]:
        raise ValueError(
            f"{config_file} is for other classes ({other.test_dataset_names[0]}) than the first "
            f"config ({first.test_dataset_names[0]}). The models of an ensemble have the same ones "
            "in the same order."
        )
    sizes = [_resized(x.build_test_augmentations()[0]) for x in (first, other)]
    if sizes[0] != sizes[1]:
        logger.warning(
            "All models see the images of the first config. An image of 480 x 640 pixels becomes "
            "%d x %d there; %s alone would make it %d x %d.",
            *sizes[0],
            config_file,
            *sizes[1],
        )


def _resized(augmentations: list[T.Augmentation]) -> tuple[int, int]:
    """Return the height and width, in pixels, that an image of 480 x 640 gets."""
    image = T.AugInput(np.zeros((480, 640, 3), np.uint8))
    T.AugmentationList(augmentations)(image)
    return image.image.shape[:2]


def _thing_classes(run_config: RunConfig) -> list[str] | None:
    """Return the classes of the first test dataset; None if its metadata do not have them yet."""
    names = run_config.test_dataset_names
    return MetadataCatalog.get(names[0]).get("thing_classes") if names else None
