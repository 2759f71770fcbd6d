"""The configs of this project by name: those of a clone, or those that a wheel has."""

import difflib
import os
from pathlib import Path


def _find_configs() -> Path:
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


CONFIGS = _find_configs()


def list_configs() -> list[str]:
    """Return the names of all configs, such as "htc/htc_r50_fpn_1x.py"."""
    paths = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.*"))
    return sorted(
        path.as_posix()
        for path in paths
        if path.suffix in (".py", ".yaml") and path.parts[0] != "common"
    )


def get_config_file(config_path: str) -> str:
    """Return the file of a config.

    Args:
        config_path: relative to configs/, e.g. "htc/htc_r50_fpn_1x.py".

    Raises:
        FileNotFoundError: if there is no such config; lists those that there are.
    """
    if not (CONFIGS / config_path).is_file():
        raise FileNotFoundError(
            f"No config {config_path!r}; there are: {', '.join(list_configs())}"
        )
    return str(CONFIGS / config_path)


def find_config(config: str) -> str:
    """Return the file that a user names: a file, or else a config of this project.

    Args:
        config: a path, or the name of a config, with "configs/" before it or without.

    Raises:
        FileNotFoundError: if it is neither; names the nearest configs.
    """
    if os.path.isfile(config):
        return config
    name = config.removeprefix("configs/")
    if (CONFIGS / name).is_file():
        return str(CONFIGS / name)
    near = difflib.get_close_matches(name, list_configs(), n=3)
    raise FileNotFoundError(
        f"There is no config file {config!r} (--config-file, or of a further model in "
        "train.test_time.checkpoints or TEST.CHECKPOINTS), and no config of this project has that "
        "name" + (f"; near: {', '.join(near)}" if near else "")
    )
