"""A malformed input, and what may happen with it."""

import multiprocessing
import os
import random
import re
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import torch

KINDS = ("datasets", "configs", "checkpoints", "operators", "cuda_operators")
SECONDS = 60  # after which a case counts as a hang
CANARY = "executed"  # the file in the case's folder that code hidden in an input would write

GOOD = ("worked", "refused")
BAD = ("silent", "late", "unclear", "executed", "hang", "crash")


@dataclass
class Case:
    """An input with one fault.

    Attributes:
        name: kind of input and fault, such as "dataset: polygon with NaN".
        check: what runs before training or evaluation starts, with an empty folder to write to. It
            returns what `use` takes.
        use: what runs afterwards, such as an iteration; None if there is nothing, as where all has
            to be refused by `check`: what is not, is silent.
        names: a regular expression that the message of a refusal has to contain: the file, key or
            value. None if the input is odd but fine, and has to work.
        why: why it is fine, by decision; "" if that goes without saying.
    """

    name: str
    check: Callable[[Path], object]
    names: str | None
    use: Callable[[object], object] | None = None
    why: str = ""


@dataclass
class Outcome:
    """What happened with a case.

    Attributes:
        kind: one of `GOOD` or `BAD`. "refused": by an error of a documented type that names what is
            wrong. "silent": a fault without an error. "late": refused after the checks. "unclear":
            another error, or a message that does not name what is wrong. "executed": code in the
            input ran. "hang", "crash": of the process.
        detail: the message, the end of the traceback, or what a process that crashed has printed.
    """

    kind: str
    detail: str = ""


# Processes start as copies of one that has imported everything and used no thread yet.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([f"{__package__}.{kind}" for kind in KINDS])


def make_case(kind: str, seed: int, index: int) -> Case:
    """Return a case, the same for the same arguments: `make_case(random)` of the kind's module."""
    module = import_module(f".{kind}", __package__)
    numbers = random.Random(f"{kind} {seed} {index}")
    torch.manual_seed(numbers.getrandbits(32))
    return module.make_case(numbers)


def run(kind: str, seed: int, index: int) -> Outcome:
    """Run a case in a process of its own."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as name:
        folder, printed = Path(name) / "input", Path(name) / "printed.txt"
        folder.mkdir()
        job = (kind, seed, index, folder, printed, sender)
        process = _CONTEXT.Process(target=_run_in_child, args=job)
        process.start()
        sender.close()
        if not receiver.poll(SECONDS):
            process.kill()
            process.join()
            return Outcome("hang", _end_of(printed))
        try:
            outcome = receiver.recv()
        except EOFError:
            process.join()
            return Outcome("crash", f"exit code {process.exitcode}\n{_end_of(printed)}")
        process.join(SECONDS)
        if (folder / CANARY).exists():
            return Outcome("executed")
        if process.exitcode != 0:  # at its end, or not even then
            process.kill()
            return Outcome("crash", f"exit code {process.exitcode}\n{_end_of(printed)}")
        return outcome


def _end_of(printed: Path) -> str:
    return printed.read_text(errors="replace")[-4000:] if printed.exists() else ""


def _run_in_child(
    kind: str, seed: int, index: int, folder: Path, printed: Path, sender: Connection
) -> None:
    # What the case prints, a sanitizer's report too, is not a part of the summary.
    with open(printed, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    case, phase = make_case(kind, seed, index), "check"
    try:
        checked = case.check(folder)
        phase = "use"
        if case.use is not None:
            case.use(checked)
    except BaseException as error:
        sender.send(_judge(case, phase, error))
    else:
        sender.send(Outcome("worked" if case.names is None else "silent"))


def _judge(case: Case, phase: str, error: BaseException) -> Outcome:
    # FileNotFoundError and the like are OSErrors; SystemExit is how a command ends with a message.
    # Operators document an IndexError for the index of an image.
    types = ValueError | TypeError | IndexError | OSError | RuntimeError | SystemExit
    documented = isinstance(error, types)
    message = str(error)
    if case.names is None or not documented or not re.search(case.names, message):
        return Outcome("unclear", "".join(traceback.format_exception(error)[-3:]))
    return Outcome("refused" if phase == "check" else "late", message)
