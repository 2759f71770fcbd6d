"""The folder that a training writes its checkpoints to."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from ..converters.weights_file import read_file

logger = logging.getLogger(__name__)

BEST = "model_best"  # the name of weights that nothing resumes from


class WholeFiles:
    """A path manager that replaces a file only when the new one is complete.

    A file is written beside its place, as "model_final.pth.part", and renamed. A process that is
    killed leaves the file from before.
    """

    def __init__(self, path_manager: Any):
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        if "w" not in mode or "://" in path:
            return self._path_manager.open(path, mode, **kwargs)
        return _write_beside(path, mode)


@contextmanager
def _write_beside(path: str, mode: str) -> Iterator[IO]:
    part = f"{path}.part"
    try:
        with open(part, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(part)
        raise
    os.replace(part, path)


def find_checkpoints(folder: str) -> list[str]:
    """Return the names of the checkpoints that a training has left in a folder."""
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if re.fullmatch(r"model_\w+\.pth", name))


def find_newest_whole(folder: str, parts: list[str]) -> str:
    """Return the checkpoint to resume from: the last one if it is whole, else the newest that is.

    Warnings say which others are not, and why.

    Args:
        folder: with the file "last_checkpoint", which names the last one, and others beside it.
        parts: what a checkpoint must have beside weights, such as ["trainer"].

    Returns:
        Its path, "" if the folder has no checkpoint at all.

    Raises:
        ValueError: if there are checkpoints, and none is whole.
    """
    problems = []
    path = _read_tag(folder, problems)
    if path:
        problem, _ = _inspect(path, parts)
        if not problem:
            return path
        problems.append(problem)
    newest, newest_iteration = "", -1
    names = [name for name in find_checkpoints(folder) if name != f"{BEST}.pth"]
    for name in names:
        other = os.path.join(folder, name)
        if other == path:
            continue
        problem, iteration = _inspect(other, parts)
        if problem:
            problems.append(problem)
        elif not newest or iteration > newest_iteration:
            newest, newest_iteration = other, iteration
    if newest:
        logger.warning("%s. Resuming from %s", "; ".join(problems), newest)
    elif names:
        raise ValueError(
            f"No checkpoint in {folder!r} is whole: {'; '.join(problems)}. To start again, delete "
            "them or name another folder (train.output_dir or OUTPUT_DIR)."
        )
    elif problems:
        logger.warning("%s, nor any checkpoint: the training starts anew", "; ".join(problems))
    return newest


def _read_tag(folder: str, problems: list[str]) -> str:
    """Return the path of the last checkpoint; if there is none, "", and add a problem to a list."""
    tag = os.path.join(folder, "last_checkpoint")
    if not os.path.isfile(tag):
        if find_checkpoints(folder):
            problems.append(f"There is no file {tag}")
        return ""
    with open(tag, errors="replace") as file:
        last = file.read().strip()
    path = os.path.join(folder, last)
    if last and os.path.basename(last) == last and os.path.isfile(path):
        return path
    names = f"names {last[:80]!r}, which is not in its folder" if last else "is empty"
    problems.append(f"{tag} {names}")
    return ""


def is_complete(path: str, parts: list[str], iteration: int) -> bool:
    """Tell whether a file is a whole checkpoint of an iteration, see `find_newest_whole`."""
    return _inspect(path, parts) == ("", iteration)


def _inspect(path: str, parts: list[str]) -> tuple[str, int]:
    """Return why a training can't resume from a file, "" if it can; and the file's iteration."""
    try:
        content = read_file(path, lazy=True)
    except (OSError, ValueError) as error:
        return str(error), -1
    if not isinstance(content, dict) or any(part not in content for part in ["model", *parts]):
        return f"{path} has no state of a training ({', '.join(parts)})", -1
    iteration = content.get("iteration")
    return "", iteration if isinstance(iteration, int) else -1
