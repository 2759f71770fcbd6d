from .checkpointer import FittingCheckpointer, load_weights
from .config_files import load_config
from .evaluation import (
    build_model,
    draw_results,
    evaluate,
    output_dir,
    test_augmentations,
    test_dataset_names,
)
from .inference_options import with_test_time_options
from .launch import launch
from .trainer import LazyTrainer, Trainer

__all__ = [
    "FittingCheckpointer",
    "LazyTrainer",
    "Trainer",
    "build_model",
    "draw_results",
    "evaluate",
    "launch",
    "load_config",
    "load_weights",
    "output_dir",
    "test_augmentations",
    "test_dataset_names",
    "with_test_time_options",
]
