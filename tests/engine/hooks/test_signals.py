import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hybrid_cascade.engine.hooks import StoppedBySignal, StopSignals

TWO_SIGNALS = """
import os, signal, time
from hybrid_cascade.engine.hooks import signals
signals.SAME_SIGNAL = 0.2
with signals.StopSignals():
    for wait in (0, 0.4, 10):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(wait)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_handlers_are_as_before_afterwards(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received == 0
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1
    with signals:
        assert signals.received == 0


def test_a_copy_of_a_signal_does_not_count_as_a_second_one():
    with StopSignals() as signals:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.05)
        assert signals.received == signal.SIGINT


def test_a_second_signal_ends_the_process():
    done = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 143
    assert "SIGTERM again" in done.stderr


def test_where_nothing_can_be_completed_a_signal_stops_at_once():
    with StopSignals() as signals:
        with pytest.raises(StoppedBySignal) as caught, signals.stop_at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        assert caught.value.code == 143
        # Nor does it begin if the signal was there before.
        with pytest.raises(StoppedBySignal), signals.stop_at_once():
            pytest.fail("it began")


def test_data_loader_workers_leave_the_process_group_and_do_not_wake_the_parent():
    with StopSignals():
        child = os.fork()
        if child == 0:
            alone = os.getpgrp() == os.getpid() and signal.set_wakeup_fd(-1) == -1
            os._exit(0 if alone else 1)
    assert os.waitpid(child, 0)[1] == 0
    outside = os.fork()
    if outside == 0:
        os._exit(0 if os.getpgrp() != os.getpid() else 1)
    assert os.waitpid(outside, 0)[1] == 0


def test_outside_of_the_main_thread_signals_stay_as_they_are():
    handlers = []

    def train():
        with StopSignals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
