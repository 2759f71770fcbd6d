"""Both kinds of config, LazyConfig (.py) and CfgNode (.yaml), behind one interface.

No other place in the project asks which kind a config is of. Everything that needs to know what a
config says asks `as_run_config(cfg)`.
"""

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from omegaconf import DictConfig

from .base import FurtherModel, InferenceOptions, RunConfig
from .errors import ConfigError, UnknownKeyError
from .lazy_config import LazyRunConfig
from .yaml_config import YamlRunConfig

__all__ = [
    "ConfigError",
    "FurtherModel",
    "InferenceOptions",
    "RunConfig",
    "UnknownKeyError",
    "as_run_config",
    "output_dir",
    "test_augmentations",
    "test_dataset_names",
]


def as_run_config(cfg: DictConfig | CfgNode) -> RunConfig:
    """Return the interface to a config of either kind."""
    return YamlRunConfig(cfg) if isinstance(cfg, CfgNode) else LazyRunConfig(cfg)


def output_dir(cfg: DictConfig | CfgNode) -> str:
    """Return the folder that a run writes to."""
    return as_run_config(cfg).output_dir


def test_augmentations(cfg: DictConfig | CfgNode) -> tuple[list[T.Augmentation], str]:
    """Return the augmentations of test images, and the "BGR" or "RGB" that the model takes."""
    return as_run_config(cfg).build_test_augmentations()


def test_dataset_names(cfg: DictConfig | CfgNode) -> list[str]:
    """Return the registered names of the datasets that a config evaluates on."""
    return as_run_config(cfg).test_dataset_names
