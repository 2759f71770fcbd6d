"""Say in a sentence what ended a run, where the error itself does not."""

import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.utils import comm

from ..data import DatasetError
from .checkpointer import CheckpointError
from .run_config import ConfigError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOST_PROCESS = re.compile(
    r"closed by peer|reset by peer|broken pipe|timed? ?out|connection was closed", re.IGNORECASE
)


def describe_fault(error: BaseException) -> str | None:
    """Return a sentence on what ended a run and what to do.

    Args:
        error: what ended it. What was raised before it counts too (`__context__`, `__cause__`).

    Returns:
        None if it is none of these: a mistake in the config or in the data, a file that is named
        and not there, a checkpoint that is damaged or does not fit, an output folder that has
        checkpoints, a loss that is not finite, a data loader worker that died, a full disk, another
        process that hangs or ended.
    """
    named_files = FileNotFoundError | FileExistsError
    is_ours = isinstance(error, named_files) and error.errno is None  # not the system's
    if is_ours or isinstance(error, ConfigError | DatasetError | CheckpointError):
        return str(error)
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, OSError) and one.errno in _DISK_FULL:
            where = f" ({one.filename})" if one.filename else ""
            return (
                f"The disk is full: {one.strerror}{where}. Checkpoints that were complete before "
                "are kept: free some space, then --resume continues from the last."
            )
    for one in chain:
        if isinstance(one, FloatingPointError):
            return str(one)
    for one in chain:
        if _lost_data_loader_worker(one):
            return (
                f"A process that loads data died: {str(one).splitlines()[0].rstrip('. ')}. Killed "
                "is often a lack of memory, Bus error one of shared memory (/dev/shm). Set fewer "
                "workers (dataloader.train.num_workers, DATALOADER.NUM_WORKERS); --resume "
                "continues from the last checkpoint."
            )
    for one in chain:
        if comm.get_world_size() > 1 and _lost_another_process(one):
            return (
                f"Process {comm.get_rank() + 1} of {comm.get_world_size()} ends, because another "
                "one has ended, or has not answered within the time limit (--timeout). The "
                f"messages of that one say why. Here: {str(one).splitlines()[0]}"
            )
    return None


def _lost_data_loader_worker(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    # Or it died while it handed over an image.
    frames = traceback.walk_tb(error.__traceback__)
    files = (Path(frame.f_code.co_filename).parts[-4:] for frame, _ in frames)
    return isinstance(error, (ConnectionError, EOFError)) and (
        ("torch", "utils", "data", "dataloader.py") in files
    )


def _lost_another_process(error: BaseException) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    from_gloo = isinstance(error, RuntimeError) and re.search("gloo|nccl", str(error), re.I)
    return bool(from_gloo and _LOST_PROCESS.search(str(error)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
