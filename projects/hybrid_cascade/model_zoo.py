"""The configs of this project by name, as `detectron2.model_zoo` has Detectron2's.

They are found in a clone and in a wheel.

from hybrid_cascade import model_zoo
model = model_zoo.get("htc/htc_r50_fpn_1x.py")
"""

from collections.abc import Sequence

from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from .engine import FittingCheckpointer, as_run_config, build_model, load_config
from .engine.config_names import CONFIGS, get_config_file

__all__ = ["CONFIGS", "TRAINED", "get", "get_config", "get_config_file"]

# Name of a config -> checkpoint that `trained=True` loads. No weights are published; name your own:
# model_zoo.TRAINED["htc/htc_r50_fpn_1x.py"] = "htc_r50.pth"
TRAINED: dict[str, str] = {}


def get_config(
    config_path: str, trained: bool = False, overrides: Sequence[str] = ()
) -> DictConfig | CfgNode:
    """Return the config of this name, a DictConfig for .py and a CfgNode for .yaml.

    Args:
        config_path: relative to configs/.
        trained: whether its initial weights are the trained ones (`TRAINED`) instead of those that
            its training starts from.
        overrides: as on the command line of train_net.py. The configs in own_data/ need some.

    Raises:
        FileNotFoundError: if there is no such config.
        RuntimeError: with `trained`, if there are no weights for it.
    """
    cfg = load_config(get_config_file(config_path), overrides)
    if not trained:
        return cfg
    if config_path not in TRAINED:
        raise RuntimeError(
            f"No trained weights are published for {config_path!r}. Train it, or convert a file "
            "with tools/convert_checkpoint.py (`hybrid-cascade convert`), and name the result in "
            f"hybrid_cascade.model_zoo.TRAINED[{config_path!r}]."
        )
    return as_run_config(cfg).replaced(initial_weights=TRAINED[config_path]).cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Return the model of this name with its weights, in training mode.

    Args:
        config_path: relative to configs/.
        trained: see `get_config`. With False, the weights are those that the training of the config
            starts from, most often those of an ImageNet backbone, downloaded if they are a URL.
        device: where to build the model; None: on the GPU if there is one.

    Raises:
        FileNotFoundError: if there is no such config, or its weights are a file that is missing.
        RuntimeError: see `get_config`.
        ValueError: if nothing in the weights fits; with `trained`, if not everything fits.
    """
    run_config = as_run_config(get_config(config_path, trained))
    if device is not None:
        run_config = run_config.replaced(device=device)
    model = build_model(run_config.cfg).train()
    if run_config.initial_weights:
        checkpointer = FittingCheckpointer(model, strict=trained)
        checkpointer.load(run_config.initial_weights, checkpointables=[])
    return model
