"""Make a model ready for inference: join its layers, and choose the type that it computes in."""

import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils.logger import log_first_n
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..modeling import fuse_layers, with_float32_outputs
from .run_config import as_run_config

# Instructions of processors for products in bfloat16, by their names in /proc/cpuinfo.
BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def prepare_inference(cfg: DictConfig | CfgNode, model: nn.Module) -> nn.Module:
    """Return the model that detects as a config says: a copy in eval mode, or the model itself.

    Call it, or parts of it, within `inference_autocast(cfg)`. A copy has the tensors of the model,
    which does not change: after a training step, make another one.

    Args:
        cfg: says whether layers are joined (train.inference.fuse_layers,
            TEST.INFERENCE.FUSE_LAYERS), and in which type they compute (train.inference.dtype,
            TEST.INFERENCE.DTYPE).
        model: of this config, or several that detect together.

    Raises:
        ValueError: for a model that can't infer in 16 bits, see `with_float32_outputs`.
    """
    run_config = as_run_config(cfg)
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if run_config.fuses_layers:
        model = fuse_layers(model)
    if _computes_in_bfloat16(run_config.inference_dtype, run_config.device_type):
        model = with_float32_outputs(model)
    return model


def inference_autocast(cfg: DictConfig | CfgNode) -> torch.autocast:
    """Return the context, or decorator, in which a model of `prepare_inference` detects."""
    run_config = as_run_config(cfg)
    device = run_config.device_type
    enabled = _computes_in_bfloat16(run_config.inference_dtype, device)
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


def _computes_in_bfloat16(dtype: str, device: str) -> bool:
    """Return whether a model computes in bfloat16 for the word of a config."""
    if dtype == "float32" or (dtype == "auto" and device != "cpu"):
        return False
    is_fast = device != "cpu" or cpu_has_bfloat16()
    if not is_fast and dtype == "bfloat16":
        message = "This processor has no instructions for bfloat16: float32 would be faster"
        log_first_n(logging.WARNING, message, name=__name__)
    return is_fast or dtype == "bfloat16"


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the processor has instructions for products in bfloat16; False if unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False  # not Linux
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not BFLOAT16_INSTRUCTIONS.isdisjoint(flags.split())
