import logging
import warnings

import pytest
import torch
from torch.fx import _symbolic_trace

from hybrid_cascade.commands import predict, train
from hybrid_cascade.commands.quiet import leave_out_known_warnings


@pytest.fixture(autouse=True)
def state_from_before():
    logger = logging.getLogger(_symbolic_trace.__name__)
    before = list(logger.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield seen
    logger.filters[:] = before


def test_the_two_known_warnings_are_left_out_and_no_others(state_from_before, caplog):
    leave_out_known_warnings()
    text = "torch.meshgrid: in an upcoming release, it will be required to pass the indexing"
    torch.meshgrid(torch.arange(2), torch.arange(2))  # warns once in a process
    warnings.warn_explicit(text, UserWarning, "functional.py", 505, "torch.functional")
    # The same text from elsewhere, and another one from there.
    warnings.warn_explicit("torch.meshgrid: in an upcoming release", UserWarning, "a.py", 1, "a")
    warnings.warn_explicit("something else", UserWarning, "f.py", 1, "torch.functional")
    messages = [str(x.message) for x in state_from_before]
    assert messages == ["torch.meshgrid: in an upcoming release", "something else"]
    logger = logging.getLogger(_symbolic_trace.__name__)
    logger.warning("is_fx_tracing will return true for both fx.symbolic_trace and torch.export.")
    logger.warning("another")
    assert [r.getMessage() for r in caplog.records if r.name == logger.name] == ["another"]


def test_commands_leave_them_out_before_they_start(monkeypatch):
    class Started(Exception):
        pass

    def start():
        raise Started

    for command, call in ((train, lambda: train.run(None)), (predict, lambda: predict.main([]))):
        monkeypatch.setattr(command, "leave_out_known_warnings", start)
        with pytest.raises(Started):
            call()
