"""One case for each outcome: what the frame has to see."""

import os
import random
import signal
import time
from pathlib import Path

from .case import CANARY, Case


def _refuse(*_args: object) -> None:
    raise ValueError("a.json has no images")


def _crash(*_args: object) -> None:
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def _execute(folder: Path) -> None:
    (folder / CANARY).write_text("")
    _refuse()


EXAMPLES = [
    Case("worked", check=lambda folder: None, names=None),
    Case("refused", check=_refuse, names=r"a\.json"),
    Case("silent", check=lambda folder: None, names=r"a\.json"),
    Case("late", check=lambda folder: None, names=r"a\.json", use=_refuse),
    Case("unclear", check=_refuse, names=r"b\.json"),
    Case("executed", check=_execute, names=r"a\.json"),
    Case("hang", check=lambda folder: time.sleep(600), names=r"a\.json"),
    Case("crash", check=_crash, names=r"a\.json"),
]


def make_case(random: random.Random) -> Case:
    """Return one of the cases; its name is the outcome."""
    return random.choice(EXAMPLES)
