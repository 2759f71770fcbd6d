"""Detect with several views of an image and several checkpoints of a model."""

from copy import deepcopy

from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from ..modeling import MNCROIHeads, RCNNEnsemble, RCNNWithTestTimeAugmentation, VotingEnsemble
from .checkpointer import load_weights
from .run_config import as_run_config


def with_test_time_options(cfg: DictConfig | CfgNode, model: nn.Module) -> nn.Module:
    """Return a model with the views and checkpoints of a config; the model itself without any.

    The options are `train.test_time` of a LazyConfig, TEST.AUG and TEST.CHECKPOINTS of a CfgNode.
    The models and views of MNC vote together on masks. The models of other R-CNNs are averaged
    within each view, and views as in Detectron2's `GeneralizedRCNNWithTTA`.

    Raises:
        ValueError: if the detections of such models or views can't be combined.
        FileNotFoundError: for a checkpoint that does not exist.
    """
    options = as_run_config(cfg).inference_options
    if not (options.checkpoints or options.has_views):
        return model
    for output in ("output_sem_seg", "output_panoptic_seg"):
        if getattr(model, output, False):
            raise ValueError(f"Test-time options combine instances only: set model.{output}=False")
    models = [model]
    for path in options.checkpoints:
        models.append(deepcopy(model))
        load_weights(models[-1], path)
    views = (options.short_sides, options.max_size, options.flip)
    if isinstance(getattr(model, "roi_heads", None), MNCROIHeads):
        return VotingEnsemble(models, *views).eval()
    combined = RCNNEnsemble(models) if options.checkpoints else model
    if options.has_views:
        combined = RCNNWithTestTimeAugmentation(combined, *views)
    return combined.eval()
