"""Load a LazyConfig (.py) or a CfgNode (.yaml) with overrides; refuse keys that nothing reads."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

import torch
import yaml
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.utils.logger import log_first_n
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..config import add_hybrid_cascade_config
from .config_checks import check_values
from .config_names import find_config
from .own_data import fit_to_own_data
from .run_config import ConfigError, UnknownKeyError, as_run_config

# All keys of a LazyConfig's `train` section, and their values where a config leaves them out:
# Detectron2's (its configs/common/train.py), then those that this project adds.
TRAIN_DEFAULTS = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "max_iter": 90000,
    "amp": {"enabled": False},
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
    # best_metric: of which the best weights are kept, such as "segm/AP".
    "checkpointer": {"period": 5000, "max_to_keep": 100, "best_metric": ""},
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
    # report.html after training and evaluation: how many images it shows, and over how many AP by
    # stage of the cascade is measured (0: none).
    "report": {"enabled": True, "images": 24, "stage_images": 100},
    # Measure the semantic branch too, by the label maps of the test dataset (mIoU).
    "evaluate_sem_seg": False,
    # Memory format of the convolutions. None: channels-last on CPUs.
    "channels_last": None,
    # Of inference and evaluation: "float32", "bfloat16" or "auto" (bfloat16 on CPUs that have
    # instructions for it); whether norms are folded into convolutions, and other layers joined.
    "inference": {"dtype": "float32", "fuse_layers": True},
    # What is looked at of image files before a training or evaluation: "headers" or "decode".
    "check_images": "headers",
    # Faults in annotations and images: "stop" or "warn".
    "data_faults": "stop",
    # Files that may turn unreadable in a training, of each process; they are skipped.
    "max_unreadable_images": 10,
    # Modules that are not trained, and the losses to train on ([]: all).
    "freeze": [],
    "losses": [],
    # Decay of the moving average of the weights, which is evaluated and saved. 0: none.
    "ema_decay": 0.0,
    # Parts in which a batch goes through the model (gradient accumulation).
    "micro_batches": 1,
    # Where metrics go beside TensorBoard, "": nowhere; the name of the run.
    "wandb": {"project": "", "name": ""},
    # With --eval-only: several views of each image, and further models: weights of the same config,
    # or lists of a config file, its weights and any overrides.
    "test_time": {"checkpoints": [], "short_sides": [], "max_size": 1333, "flip": False},
}

# Parts of a LazyConfig that no single value can stand for.
SECTIONS = (
    *("train", "model", "dataloader", "dataloader.train", "dataloader.test"),
    *("model.backbone", "model.proposal_generator", "model.roi_heads", "optimizer"),
)


def load_config(config_file: str, opts: Sequence[str] = ()) -> DictConfig | CfgNode:
    """Load a config; where it asks for a GPU and there is none, it gets the CPU.

    A LazyConfig is Python code, which runs. A YAML file can't run code of its own. The modules in
    its DATASETS.IMPORTS are imported: names of modules, or Python files, which are looked up in the
    working directory, then beside the YAML file.

    Args:
        config_file: a LazyConfig (.py) with `model`, `train`, `dataloader`, `optimizer` and
            `lr_multiplier`, or a CfgNode (.yaml, .yml). If there is no such file, the config of
            this project with that name, such as "htc/htc_r50_fpn_1x.py".
        opts: overrides as Detectron2 takes them: "model.roi_heads.num_classes=5" for a LazyConfig,
            "MODEL.ROI_HEADS.NUM_CLASSES", "5" for a CfgNode.

    Raises:
        FileNotFoundError: if there is neither such a file nor such a config.
        UnknownKeyError: for a key that does not exist, a KeyError; names it and the nearest ones.
        ConfigError: for a file that is no config, lacks a section or can't be read; for values
            that can't be meant, see `config_checks`; if model and data have different orders of
            the colour channels; for a module that can't be imported; see `fit_to_own_data`. A
            ValueError.
        DatasetError: see `fit_to_own_data`. A ValueError.
    """
    config_file = find_config(config_file)
    if config_file.endswith((".yaml", ".yml")):
        cfg = _load_yaml(config_file, opts)
    elif config_file.endswith(".py"):
        cfg = _load_lazy(config_file, opts)
    else:
        raise ConfigError(f"{config_file} is neither a LazyConfig (.py) nor a CfgNode (.yaml)")
    check_values(cfg)
    as_run_config(cfg).inference_options  # noqa: B018  raises for lists of models that are none
    return cfg


def _load_yaml(config_file: str, opts: Sequence[str]) -> CfgNode:
    cfg = get_cfg()
    add_hybrid_cascade_config(cfg)
    known = _keys_of(cfg)
    try:
        cfg.merge_from_file(config_file, allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(
            f"{config_file} asks for Python objects, which could run code: {error}. Write plain "
            "values: numbers, texts, lists."
        ) from error
    except KeyError as error:
        key = str(error.args[0]).rpartition(": ")[2]
        raise _unknown_key(key, key, known, f" in {config_file}") from error
    except Exception as error:
        raise ConfigError(f"{config_file} is no YAML config: {_describe(error)}") from error
    keys = list(opts[0::2])
    if len(opts) % 2:
        raise ConfigError(f"The override {opts[-1]!r} has no value: give KEY VALUE")
    for key, value in zip(keys, opts[1::2], strict=True):
        if key not in known:
            raise _unknown_key(key, key, known)
        try:
            cfg.merge_from_list([key, value])
        except Exception as error:
            raise ConfigError(f"{key} can't be {value!r}: {_describe(error)}") from error
    if isinstance(cfg.MODEL.DEVICE, str):
        cfg.MODEL.DEVICE = _usable_device(cfg.MODEL.DEVICE)
    cfg.freeze()
    for entry in cfg.DATASETS.IMPORTS:
        _import(entry, config_file)
    return cfg


def _load_lazy(config_file: str, opts: Sequence[str]) -> DictConfig:
    try:
        cfg = LazyConfig.load(config_file)
    except Exception as error:
        raise ConfigError(f"{config_file} can't be loaded: {_describe(error)}") from error
    for section in ("model", "train", "dataloader", "optimizer", "lr_multiplier"):
        if not isinstance(cfg.get(section), DictConfig):
            raise ConfigError(f"{config_file} defines no `{section}`")
    _check_keys("train", cfg.train, TRAIN_DEFAULTS)
    cfg.train = OmegaConf.merge(TRAIN_DEFAULTS, cfg.train)
    for override in opts:
        _check_override(cfg, override)
        try:
            cfg = LazyConfig.apply_overrides(cfg, [override])
        except Exception as error:
            raise ConfigError(f"The override {override!r}: {_describe(error)}") from error
    for key in SECTIONS:
        section = OmegaConf.select(cfg, key)
        if isinstance(section, str | int | float | ListConfig):
            raise ConfigError(f"{key} is {section!r}, but has to be a section")
    _check_keys("train", cfg.train, TRAIN_DEFAULTS)
    fit_to_own_data(cfg, config_file)
    _check_image_formats(cfg)
    if isinstance(cfg.train.device, str):
        cfg.train.device = _usable_device(cfg.train.device)
    return cfg


def _describe(error: Exception) -> str:
    """Return the kind and the text of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _keys_of(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for name, value in cfg.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, CfgNode):
            keys += _keys_of(value, f"{prefix}{name}.")
    return keys


def _import(entry: str, config_file: str) -> None:
    """Import a module that a YAML config names, once in a process."""
    try:
        if not entry.endswith(".py"):
            importlib.import_module(entry)
            return
        folders = ("", os.path.dirname(config_file))
        paths = [os.path.abspath(os.path.join(folder, entry)) for folder in folders]
        path = next(filter(os.path.isfile, paths), None)
        if path is None:
            raise FileNotFoundError(f"there is neither {' nor '.join(dict.fromkeys(paths))}")
        # A name of its own, as two files of one name in two folders are two modules.
        stem = os.path.splitext(os.path.basename(path))[0]
        name = f"{stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    except Exception as error:
        raise ConfigError(
            f"DATASETS.IMPORTS of {config_file}: {entry!r} can't be imported: {_describe(error)}"
        ) from error


def _check_image_formats(cfg: DictConfig) -> None:
    """Raise a ConfigError if model and data have different orders of the colour channels."""
    expected = cfg.model.get("input_format")
    for split in ("train", "test"):
        key = f"dataloader.{split}.mapper.image_format"
        found = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        if expected and found and found != expected:
            raise ConfigError(f"{key} is {found!r}, but model.input_format is {expected!r}")


def _usable_device(device: str) -> str:
    # Something else that begins like this is refused when the values are checked.
    if re.fullmatch(r"cuda(:\d+)?", device) and not torch.cuda.is_available():
        message = f"There is no GPU: using the CPU, {torch.get_num_threads()} threads"
        log_first_n(logging.WARNING, message, name=__name__)
        return "cpu"
    return device


def _unknown_key(key: str, part: str, known: Sequence[str], where: str = "") -> UnknownKeyError:
    near = difflib.get_close_matches(part, known, n=3) or sorted(known)[:20]
    return UnknownKeyError(f"Unknown config key {key!r}{where}; there is: {', '.join(near)}")


def _check_keys(prefix: str, section: DictConfig, known: dict) -> None:
    for key, value in section.items():
        if key not in known:
            raise _unknown_key(f"{prefix}.{key}", key, list(known))
        if isinstance(known[key], dict):
            if not isinstance(value, DictConfig):
                raise ConfigError(
                    f"{prefix}.{key} is {value!r}, but has to be a section with "
                    + ", ".join(known[key])
                )
            _check_keys(f"{prefix}.{key}", value, known[key])


def _check_override(cfg: DictConfig, override: str) -> None:
    """Raise a KeyError for an override that would add a key that nothing reads.

    LazyConfig adds every key. New keys are fine where they are arguments of a `_target_`.
    """
    key, separator, _ = override.partition("=")
    if not (key and separator):
        raise ConfigError(f"The override {override!r} is not of the form key=value")
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
