"""Run what a config describes: build its model, train it, evaluate it."""

from .build import build_model
from .checkpointer import FittingCheckpointer, load_weights
from .config_files import load_config
from .config_names import find_config
from .evaluation import draw_results, evaluate
from .inference_model import inference_autocast, prepare_inference
from .inference_options import with_test_time_options
from .launch import argument_parser, launch
from .quiet import harmless_warnings_ignored
from .run_config import (
    ConfigError,
    RunConfig,
    as_run_config,
    output_dir,
    test_augmentations,
    test_dataset_names,
)
from .run_report import write_run_report
from .trainer import Trainer

LazyTrainer = Trainer  # its name for a LazyConfig, before `Trainer` took both kinds of config

__all__ = [
    "ConfigError",
    "FittingCheckpointer",
    "LazyTrainer",
    "RunConfig",
    "Trainer",
    "argument_parser",
    "as_run_config",
    "build_model",
    "draw_results",
    "evaluate",
    "find_config",
    "harmless_warnings_ignored",
    "inference_autocast",
    "launch",
    "load_config",
    "load_weights",
    "output_dir",
    "prepare_inference",
    "test_augmentations",
    "test_dataset_names",
    "with_test_time_options",
    "write_run_report",
]
