"""Build the model of a config."""

import torch
from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from ..modeling import check_semantic_features
from .run_config import as_run_config


def build_model(cfg: DictConfig | CfgNode) -> nn.Module:
    """Build the model of a config in eval mode, on the device of the config; load no checkpoint.

    Its convolutions are channels-last on a CPU, where that is faster, unless the config says
    otherwise (train.channels_last, MODEL.CHANNELS_LAST). Results differ in rounding only.

    If the semantic branch is to be measured (train.evaluate_sem_seg, TEST.EVALUATE_SEM_SEG), the
    model returns "sem_seg".

    Raises:
        ValueError: if the ROI heads read semantic features that the model does not compute, or the
            semantic branch is to be measured and there is none.
    """
    run_config = as_run_config(cfg)
    model = run_config.build_model()
    if hasattr(model, "roi_heads"):
        check_semantic_features(model)
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
