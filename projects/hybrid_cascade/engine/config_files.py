"""Load a LazyConfig (.py) or a CfgNode (.yaml) with overrides; refuse keys that nothing reads."""

import difflib
import inspect
import logging
import os
from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.utils.logger import log_first_n
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..config import add_hybrid_cascade_config

# All keys of a LazyConfig's `train` section, and their values where a config leaves them out:
# Detectron2's (its configs/common/train.py), then those that this project adds.
TRAIN_DEFAULTS = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "max_iter": 90000,
    "amp": {"enabled": False},
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda",
    "seed": -1,
    "cudnn_benchmark": False,
    "clip_gradients": {
        "enabled": False,
        "clip_type": "norm",
        "clip_value": 35.0,
        "norm_type": 2.0,
    },
    # Test images that are drawn stage by stage after training and evaluation.
    "num_panels": 6,
    # Measure the semantic branch too, by the label maps of the test dataset (mIoU).
    "evaluate_sem_seg": False,
    # Memory format of the convolutions. None: channels-last on CPUs.
    "channels_last": None,
    # What is looked at of image files before a training or evaluation: "headers" or "decode".
    "check_images": "headers",
    # Faults in annotations and images: "stop" or "warn".
    "data_faults": "stop",
    # Files that may turn unreadable in a training, of each process; they are skipped.
    "max_unreadable_images": 10,
    # Modules that are not trained, and the losses to train on ([]: all).
    "freeze": [],
    "losses": [],
    # With --eval-only: several views of each image, and further models: weights of the same config,
    # or lists of a config file, its weights and any overrides.
    "test_time": {"checkpoints": [], "short_sides": [], "max_size": 1333, "flip": False},
}


def load_config(config_file: str, opts: Sequence[str] = ()) -> DictConfig | CfgNode:
    """Load a config; where it asks for a GPU and there is none, it gets the CPU.

    Args:
        config_file: a LazyConfig (.py) with `model`, `train`, `dataloader`, `optimizer` and
            `lr_multiplier`, or a CfgNode (.yaml, .yml).
        opts: overrides as Detectron2 takes them: "model.roi_heads.num_classes=5" for a LazyConfig,
            "MODEL.ROI_HEADS.NUM_CLASSES", "5" for a CfgNode.

    Raises:
        FileNotFoundError: if there is no such file.
        KeyError: for a key that does not exist; names it and the nearest ones.
        ValueError: for a file of another kind or without one of the sections, or if model and data
            have different orders of the colour channels.
    """
    if not os.path.isfile(config_file):
        raise FileNotFoundError(
            f"There is no config file {config_file!r} (--config-file, or of a further model in "
            "train.test_time.checkpoints or TEST.CHECKPOINTS)"
        )
    if config_file.endswith((".yaml", ".yml")):
        cfg = get_cfg()
        add_hybrid_cascade_config(cfg)
        cfg.merge_from_file(config_file)
        cfg.merge_from_list(list(opts))
        cfg.MODEL.DEVICE = _usable_device(cfg.MODEL.DEVICE)
        cfg.freeze()
        return cfg
    if not config_file.endswith(".py"):
        raise ValueError(f"{config_file} is neither a LazyConfig (.py) nor a CfgNode (.yaml)")
    cfg = LazyConfig.load(config_file)
    for section in ("model", "train", "dataloader", "optimizer", "lr_multiplier"):
        if section not in cfg:
            raise ValueError(f"{config_file} defines no `{section}`")
    _check_keys("train", cfg.train, TRAIN_DEFAULTS)
    cfg.train = OmegaConf.merge(TRAIN_DEFAULTS, cfg.train)
    for override in opts:
        _check_override(cfg, override)
    cfg = LazyConfig.apply_overrides(cfg, list(opts))
    _check_image_formats(cfg)
    cfg.train.device = _usable_device(cfg.train.device)
    return cfg


def _check_image_formats(cfg: DictConfig) -> None:
    """Raise a ValueError if model and data have different orders of the colour channels."""
    expected = cfg.model.get("input_format")
    for split in ("train", "test"):
        mapper = cfg.dataloader.get(split, {}).get("mapper", {})
        found = mapper.get("image_format")
        if expected and found and found != expected:
            raise ValueError(
                f"dataloader.{split}.mapper.image_format is {found!r}, but model.input_format is "
                f"{expected!r}"
            )


def _usable_device(device: str) -> str:
    if device.startswith("cuda") and not torch.cuda.is_available():
        message = f"There is no GPU: using the CPU, {torch.get_num_threads()} threads"
        log_first_n(logging.WARNING, message, name=__name__)
        return "cpu"
    return device


def _unknown_key(key: str, part: str, known: Sequence[str]) -> KeyError:
    near = difflib.get_close_matches(part, known, n=3) or sorted(known)
    return KeyError(f"Unknown config key {key!r}; there is: {', '.join(near)}")


def _check_keys(prefix: str, section: DictConfig, known: dict) -> None:
    for key, value in section.items():
        if key not in known:
            raise _unknown_key(f"{prefix}.{key}", key, list(known))
        if isinstance(known[key], dict):
            _check_keys(f"{prefix}.{key}", value, known[key])


def _check_override(cfg: DictConfig, override: str) -> None:
    """Raise a KeyError for an override that would add a key that nothing reads.

    LazyConfig adds every key. New keys are fine where they are arguments of a `_target_`.
    """
    key, separator, _ = override.partition("=")
    if not separator:
        raise ValueError(f"The override {override!r} is not of the form key=value")
    node = cfg
    for part in key.lstrip("+~").split("."):
        known = [str(k) for k in (node if isinstance(node, DictConfig) else range(len(node)))]
        if part not in known:
            target = node.get("_target_") if isinstance(node, DictConfig) else None
            if target is None:
                raise _unknown_key(key, part, known)
            known = _arguments(target)
            if known is not None and part not in known:
                raise _unknown_key(key, part, known)
            return
        node = node[part] if isinstance(node, DictConfig) else node[int(part)]
        if not OmegaConf.is_config(node):
            return


def _arguments(target: Callable | str) -> list[str] | None:
    """Return the names of the arguments of a function or class; None if it takes any name.

    A `@configurable` class (ROI heads and meta-architectures, for example) is taken to hand its
    `**kwargs` to the constructor of its base class, whose arguments are then added. Any other
    `**kwargs` may be of any name.
    """
    target = locate(target) if isinstance(target, str) else target
    constructors = [target]
    if inspect.isclass(target) and hasattr(target, "from_config"):
        constructors = [c.__init__ for c in target.__mro__ if "__init__" in vars(c)]
    names = []
    for constructor in constructors:
        parameters = inspect.signature(constructor).parameters.values()
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        named = [name for name in named if name != "self"]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not takes_any:
            return names + named if named or constructor is constructors[0] else None
        names += named
    return None
