"""Sentences about what ended a run."""

import errno
import os

import pytest
import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from hybrid_cascade.data import DatasetError
from hybrid_cascade.engine import ConfigError
from hybrid_cascade.engine.checkpointer import CheckpointError
from hybrid_cascade.engine.faults import describe_fault
from hybrid_cascade.engine.run_config import UnknownKeyError


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("train.max_iter is 'x'"),
        UnknownKeyError("No key 'train.x'"),
        DatasetError("Dataset 'a' has no images"),
        FileNotFoundError("There is no checkpoint 'a.pth'"),
        CheckpointError("The checkpoint 'a.pth' can't be read"),
        FileExistsError("The output folder 'a' has checkpoints"),
    ],
)
def test_mistakes_of_the_user_need_no_traceback(error):
    assert describe_fault(error) == str(error)
    assert describe_fault(FileNotFoundError(errno.ENOENT, "No such file", "a.jpg")) is None
    assert describe_fault(ValueError("a")) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_found_behind_the_error_of_torch_that_follows(number):
    def save():
        try:
            raise OSError(number, "No space left on device", "model_0000001.pth")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] .")  # noqa: B904

    sentence = describe_fault(raised(save))
    assert sentence.startswith("The disk is full: No space left on device (model_0000001.pth)")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_what_torch_raises_on_a_full_disk_is_recognized():
    def save():
        with open("/dev/full", "wb") as file:
            torch.save({"weight": torch.zeros(100_000)}, file)

    assert describe_fault(raised(save)).startswith("The disk is full")


class Deadly(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), 9)


def test_a_dead_data_loader_worker_is_named_with_what_to_do():
    error = raised(lambda: list(DataLoader(Deadly(), num_workers=1)))
    sentence = describe_fault(error)
    assert "DataLoader worker (pid" in sentence and "DATALOADER.NUM_WORKERS" in sentence


class HandsOverNothing(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise ConnectionResetError(104, "Connection reset by peer")


def test_so_is_one_that_died_while_it_handed_over_an_image():
    # Without workers the error has the frames that it has in the process that waits for a worker.
    error = raised(lambda: list(DataLoader(HandsOverNothing(), num_workers=0)))
    assert "A process that loads data died: [Errno 104]" in describe_fault(error)


def test_a_process_that_lost_another_says_so(monkeypatch):
    error = RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.1]:5")
    assert describe_fault(error) is None  # one process has no others
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    assert "--timeout" in describe_fault(error)
    timeout = RuntimeError("[/gloo/unbound_buffer.cc:81] Timed out waiting 9000ms for recv")
    assert "--timeout" in describe_fault(timeout)


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for error in (ValueError("a"), RuntimeError("shape mismatch"), OSError(errno.ENOENT, "b")):
        assert describe_fault(error) is None
