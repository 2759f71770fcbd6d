"""Check the values of a config before anything is built, by `config_table`."""

import difflib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..converters.safe_pickle import load_arrays
from .config_rules import Rule
from .config_table import TABLE
from .own_data import check_names_are_given
from .run_config import ConfigError, RunConfig


def check_values(cfg: DictConfig | CfgNode) -> None:
    """Check the values of a config by `TABLE`.

    Args:
        cfg: a LazyConfig or a CfgNode. Where a value of a LazyConfig is computed by a call
            (`L(...)`), that value is not known and not checked.

    Raises:
        ConfigError: for a value that can't be meant; names the key as it stands in the config, the
            value, and what it may be.
    """
    is_yaml = isinstance(cfg, CfgNode)
    for key, value in _yaml_values("", cfg) if is_yaml else _lazy_values(cfg):
        rule = _rule_of(key, is_yaml)
        if rule is not None and not rule.holds(value):
            raise ConfigError(f"{key} is {value!r}, but has to be {rule.text}")


def check_training(run_config: RunConfig, num_processes: int) -> None:
    """Check what a training needs of a config, besides its data.

    Raises:
        ConfigError: see `check_values`, `check_test_datasets` and `check_proposal_files`; for
            training datasets that are not registered; if the processes can't share the images of a
            batch equally.
    """
    check_values(run_config.cfg)
    key, names = run_config.train_datasets
    check_names_are_given(run_config.cfg, names)
    if not names:
        raise ConfigError(f"{key} is empty: name a dataset to train on")
    for name in names:
        _check_is_registered(name, key)
    check_test_datasets(run_config)
    check_proposal_files(run_config)
    solver = run_config.trainer_config().SOLVER
    # Detectron2 scales the batch from this number of processes to that of the run.
    shares = solver.REFERENCE_WORLD_SIZE or num_processes
    parts = run_config.micro_batches
    if solver.IMS_PER_BATCH % (shares * parts):
        raise ConfigError(
            f"{run_config.KEYS['batch_size']} is {solver.IMS_PER_BATCH}, but has to be a multiple "
            f"of the {shares} processes "
            + ("of SOLVER.REFERENCE_WORLD_SIZE" if solver.REFERENCE_WORLD_SIZE else "that share it")
            + (f", times {parts} ({run_config.KEYS['micro_batches']})" if parts > 1 else "")
        )
    if run_config.ema_decay and run_config.trainer_config().TEST.PRECISE_BN.ENABLED:
        raise ConfigError(
            "TEST.PRECISE_BN.ENABLED measures statistics for the weights that are trained, but "
            "SOLVER.EMA_DECAY evaluates their averages: switch one of them off"
        )


def check_test_datasets(run_config: RunConfig) -> None:
    """Raise a ConfigError if a dataset to evaluate on is not registered."""
    check_names_are_given(run_config.cfg, run_config.test_dataset_names)
    for name in run_config.test_dataset_names:
        _check_is_registered(name, run_config.KEYS["test_datasets"])


def check_proposal_files(run_config: RunConfig) -> None:
    """Raise a ConfigError for a file of proposals that has more than arrays and plain values.

    Detectron2 unpickles it, which would run the code that such a file names.
    """
    for path in run_config.proposal_files:
        try:
            with PathManager.open(path, "rb") as file:
                load_arrays(file)
        except Exception as error:  # a damaged pickle can raise anything
            raise ConfigError(
                f"The file of proposals {path!r} (DATASETS.PROPOSAL_FILES_TRAIN, _TEST, or "
                f"proposal_files) can't be read: {error or type(error).__name__}"
            ) from error


def _check_is_registered(name: str, key: str) -> None:
    if name in DatasetCatalog.list():
        return
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
    hint = f" Is it {' or '.join(map(repr, near))}?" if near else ""
    raise ConfigError(
        f"{key} names the dataset {name!r}, which is not registered.{hint} Register your data "
        "(hybrid_cascade.data.register_coco_json) in the LazyConfig, or in a module that "
        "DATASETS.IMPORTS of a YAML config names."
    )


@cache
def _rule_of(key: str, is_yaml: bool) -> Rule | None:
    return next((rule for pattern, rule in _patterns(is_yaml) if pattern.fullmatch(key)), None)


@cache
def _patterns(is_yaml: bool) -> list[tuple[re.Pattern, Rule]]:
    return [(_compile(row[is_yaml]), row[2]) for row in TABLE if row[is_yaml] is not None]


def _compile(pattern: str) -> re.Pattern:
    """Return the regular expression of a key of `TABLE`."""
    replaced = {r"**.": r"(.+\.)?", "*": r"[^.]*", "{": "(", ",": "|", "}": ")", ".": r"\."}
    return re.compile(re.sub(r"\*\*\.|[*{},.]", lambda match: replaced[match[0]], pattern))


def _yaml_values(prefix: str, node: CfgNode) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _yaml_values(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _lazy_values(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    pairs = []
    for section in ("train", "dataloader", "optimizer", "lr_multiplier", "model"):
        if section in cfg:
            tree = OmegaConf.to_container(cfg[section], resolve=False)
            pairs += _tree_values(section, tree, is_known=section == "train")
    # An error should name the key of a value rather than one that refers to it.
    yield from (pair for pair in pairs if not _refers(pair[1]))
    for key, value in pairs:
        if _refers(value):
            found = _resolved(cfg, key, value)
            if not OmegaConf.is_config(found):  # a section's values are checked where they stand
                yield key, found


def _tree_values(key: str, value: Any, is_known: bool) -> Iterator[tuple[str, Any]]:
    """Yield keys and values below a key; `is_known` tells whether arguments mean what we think."""
    is_call = isinstance(value, dict) and "_target_" in value
    if is_known and not is_call and value != "???" and _rule_of(key, False) is not None:
        yield key, value
    if isinstance(value, dict):
        target = value.get("_target_")
        is_known = is_known if target is None else _is_ours(target)
        for name, member in value.items():
            if name != "_target_":
                yield from _tree_values(f"{key}.{name}", member, is_known)
    elif isinstance(value, list) and any(isinstance(member, dict) for member in value):
        for index, member in enumerate(value):
            yield from _tree_values(f"{key}.{index}", member, is_known)


def _refers(value: Any) -> bool:
    """Tell whether a value is an interpolation ("${train.max_iter}"), or a list with one."""
    members = value if isinstance(value, list) else [value]
    return any(isinstance(member, str) and "${" in member for member in members)


def _resolved(cfg: DictConfig, key: str, value: Any) -> Any:
    """Return what an interpolation stands for."""
    try:
        found = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_list(found) else found
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} is {value!r}: {error}") from error


def _is_ours(target: Any) -> bool:
    if isinstance(target, str):
        try:
            target = locate(target)
        except ImportError as error:
            raise ConfigError(
                f"_target_ is {target!r}, which can't be imported: {error}"
            ) from error
    module = getattr(target, "__module__", None) or ""
    return module.partition(".")[0] in ("detectron2", "hybrid_cascade", "fvcore", "torch")
