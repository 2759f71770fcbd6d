"""Start the processes of a run: a single one, or one for each GPU; or join those of torchrun."""

import ctypes
import logging
import os
import shlex
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from detectron2.engine import default_argument_parser
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

from .cores import share_cores
from .faults import describe_fault
from .hooks import StoppedBySignal

logger = logging.getLogger(__name__)

TIMEOUT = 15.0  # minutes


def argument_parser(epilog: str | None = None) -> ArgumentParser:
    """Return Detectron2's `default_argument_parser` with the option `--timeout`."""
    parser = default_argument_parser(epilog)
    parser.add_argument(
        "--timeout",
        type=_minutes,
        default=TIMEOUT,
        help="minutes that a process waits for the others, before it takes them for hanging and "
        f"ends (default: {TIMEOUT:g}). An evaluation in the main process has to fit in.",
    )
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < 1e6:
        raise ValueError(f"{text} is no number of minutes above 0")
    return minutes


def launch(main: Callable, args) -> None:
    """Run `main(args)` in every process.

    A fault that `describe_fault` knows ends a process with its sentence and exit code 1. A training
    that was stopped by SIGINT or SIGTERM ends with the command that continues it, and 130 or 143.

    Args:
        main: the function to run.
        args: of `argument_parser`, or of Detectron2's `default_argument_parser`. Without a GPU,
            `num_gpus` counts as 1. Under torchrun the number of processes is torchrun's, and they
            talk over NCCL, or over gloo without a GPU.
    """
    timeout = timedelta(minutes=getattr(args, "timeout", TIMEOUT))
    run_args = (main, args, resume_command())
    if "LOCAL_WORLD_SIZE" in os.environ:
        _end_with_parent()
        _join_torchrun(timeout)
        try:
            _run(*run_args)
        finally:
            torch.distributed.destroy_process_group()
        return
    share_cores(1)
    num_gpus = args.num_gpus if torch.cuda.is_available() else min(args.num_gpus, 1)
    detectron2_launch(
        _run,
        num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=run_args,
        timeout=timeout,
    )


def _run(main: Callable, args, resume_command: list[str]) -> None:
    try:
        main(args)
    except StoppedBySignal:
        if comm.is_main_process():
            logger.warning("To continue: %s", shlex.join(resume_command))
        raise
    except Exception as error:
        sentence = describe_fault(error)
        if sentence is None:
            raise
        sys.exit(f"\n{sentence}")  # printed to stderr; the exit code is 1


def resume_command() -> list[str]:
    """Return the command that started this run, with `--resume`."""
    command = sys.orig_argv
    if "LOCAL_WORLD_SIZE" in os.environ:
        command = _command_of(os.getppid()) or ["torchrun", "…", *sys.argv]
    # Before the other options: what follows the overrides would be one of them.
    options = sys.argv[1:]
    place = len(command) - len(options)
    return [*command[:place], *([] if "--resume" in options else ["--resume"]), *options]


def _command_of(process: int) -> list[str] | None:
    """Return the command line of a process; None if it can't be read, or does not end as ours."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return None
    options = sys.argv[1:]
    return command if command[len(command) - len(options) :] == options else None


def _end_with_parent() -> None:
    """Let this process get SIGTERM when torchrun dies, even of SIGKILL (on Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _join_torchrun(timeout: timedelta) -> None:
    local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        share_cores(local_world_size)
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=timeout)
    comm.create_local_process_group(local_world_size)
