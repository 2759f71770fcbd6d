"""Build the model of a config."""

import torch
from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from ..modeling import check_semantic_features
from .run_config import ConfigError, as_run_config


def build_model(cfg: DictConfig | CfgNode) -> nn.Module:
    """Build the model of a config in eval mode, on the device of the config; load no checkpoint.

    Its convolutions are channels-last on a CPU, where that is faster, unless the config says
    otherwise (train.channels_last, MODEL.CHANNELS_LAST). Results differ in rounding only.

    If the semantic branch is to be measured (train.evaluate_sem_seg, TEST.EVALUATE_SEM_SEG), the
    model returns "sem_seg".

    Raises:
        ValueError: if the RPN or the ROI heads read features that the model does not compute, or
            the semantic branch is to be measured and there is none.
    """
    run_config = as_run_config(cfg)
    model = run_config.build_model()
    if hasattr(model, "roi_heads"):
        check_semantic_features(model)  # it says what to do where the semantic branch is missing
        _check_features(model)
    if run_config.evaluates_sem_seg:
        _return_sem_seg(model)
    channels_last = run_config.channels_last
    if channels_last is None:
        channels_last = next(model.parameters()).device.type == "cpu"
    if channels_last:
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model.eval()


def _return_sem_seg(model: nn.Module) -> None:
    if hasattr(model, "output_sem_seg"):
        model.output_sem_seg = True
    elif not hasattr(model, "sem_seg_head"):  # Detectron2's models with one always return it
        raise ValueError(
            "train.evaluate_sem_seg (TEST.EVALUATE_SEM_SEG) is True, but this "
            f"{type(model).__name__} has no semantic branch. Set it to False, or use a config with "
            "one (SemanticRCNN)."
        )


def _check_features(model: nn.Module) -> None:
    """Raise a ConfigError if a part reads features of the backbone that are not there."""
    known = dict(model.backbone.output_shape())
    if hasattr(model, "semantic_branch"):
        known |= model.semantic_branch.output_shape()
    for part in ("proposal_generator", "roi_heads"):
        for name in ("in_features", "box_in_features", "mask_in_features"):
            wanted = getattr(getattr(model, part), name, None) or ()
            missing = [feature for feature in wanted if feature not in known]
            if missing:
                raise ConfigError(
                    f"model.{part}.{name} (IN_FEATURES) names {', '.join(missing)}, but the model "
                    f"computes {', '.join(known)}"
                )
