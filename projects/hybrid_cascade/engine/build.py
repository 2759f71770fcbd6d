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

    Raises:
        ValueError: if the ROI heads read semantic features that the model does not compute.
    """
    run_config = as_run_config(cfg)
    model = run_config.build_model()
    if hasattr(model, "roi_heads"):
        check_semantic_features(model)
    channels_last = run_config.channels_last
    if channels_last is None:
        channels_last = next(model.parameters()).device.type == "cpu"
    if channels_last:
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model.eval()
