"""Ctrl-C and SIGTERM: finish the iteration, write a checkpoint, stop."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from detectron2.engine.hooks import HookBase
from detectron2.utils import comm

from .finite import check_weights

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What comes within this many seconds is the same signal: of a Ctrl-C in a terminal, torchrun sends
# a copy to processes that have it already.
SAME_SIGNAL = 1.0


class StoppedBySignal(SystemExit):
    """A training that was told to stop, and did. Ends a process with 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class StopSignals:
    """Take note of SIGINT and SIGTERM within a `with` block instead of dying of them.

    A second signal, more than a second after the first, ends the process at once, even where it
    hangs. Processes that are forked within the block, such as data loader workers, leave the group
    of this process: a signal to the group would kill them before the iteration is complete.

    Outside of the main thread it does nothing, since Python has signals in the main thread only.

    Attributes:
        received: the number of the first signal; 0: none yet.
    """

    def __init__(self) -> None:
        self.received = 0
        self._raises = False

    def __enter__(self) -> "StopSignals":
        global _active
        self.received, self._raises = 0, False
        if threading.current_thread() is not threading.main_thread():
            return self
        # Python runs handlers between two of its own instructions: never in a process that waits
        # inside of C++. The wakeup file is written at once, and a thread reads it.
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._take_note) for number in SIGNALS}
        threading.Thread(target=_end_at_second_signal, args=(reader,), daemon=True).start()
        _active = True
        return self

    def __exit__(self, *_exception: object) -> None:
        global _active
        if threading.current_thread() is not threading.main_thread():
            return
        _active = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        os.close(self._writer)  # ends the thread

    @contextmanager
    def stop_at_once(self) -> Iterator[None]:
        """Raise StoppedBySignal where the process is, inside of this `with` block."""
        self._raises = True
        try:
            if self.received:
                raise StoppedBySignal(self.received)
            yield
        finally:
            self._raises = False

    def _take_note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._raises:
            self._raises = False
            raise StoppedBySignal(self.received)


_active = False  # whether this process is inside of a `with StopSignals()`


def _leave_signals_to_the_parent() -> None:
    if _active:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_leave_signals_to_the_parent)


def _end_at_second_signal(reader: int) -> None:
    first = None
    with os.fdopen(reader, "rb", buffering=0) as file:
        while numbers := file.read(64):
            for number in set(numbers).intersection(SIGNALS):
                name = signal.Signals(number).name
                if first is None:
                    first = time.monotonic()
                    _say(f"{name}: the training stops after this iteration; again: at once.")
                elif time.monotonic() - first > SAME_SIGNAL:
                    _say(f"{name} again: the process ends at once.")
                    os._exit(128 + number)


def _say(text: str) -> None:
    # Not by a logger: the main thread may have been stopped while it holds the logger's lock.
    os.write(2, f"{text}\n".encode())


class StopOnSignal(HookBase):
    """Write a checkpoint and stop, in all processes after the same iteration, if one has a signal.

    Its place is after the hook that writes checkpoints and before evaluations.

    Raises:
        StoppedBySignal: by `after_step`.
    """

    def __init__(self, signals: StopSignals, period: int):
        """
        Args:
            signals: what it looks at after each iteration.
            period: iterations between two checkpoints. The last iteration has one too.
        """
        self.signals = signals
        self.period = period

    def after_step(self) -> None:
        received = max(comm.all_gather(self.signals.received))
        if received:
            self.save(received)
            comm.synchronize()  # or the launcher kills the one that writes: others have ended
            raise StoppedBySignal(received)

    def save(self, received: int, *, in_all_processes: bool = True) -> None:
        """Write a checkpoint of the last complete iteration, unless it has one; say where it is.

        Args:
            received: the number of the signal.
            in_all_processes: False where only this process does so.
        """
        trainer = self.trainer
        following = trainer.iter + 1
        if following % self.period and following < trainer.max_iter:
            check_weights(trainer.model, trainer.iter, in_all_processes=in_all_processes)
            trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
        if comm.is_main_process():
            logger.warning(
                "Stopped by %s after iteration %d. --resume continues from %s",
                signal.Signals(received).name,
                min(trainer.iter, trainer.max_iter - 1),
                trainer.checkpointer.get_checkpoint_file(),
            )
