"""What two processes have to agree on. torchrun runs this file, and so do the tests below."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer, create_ddp_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from hybrid_cascade.engine.hooks import (
    CheckLosses,
    NotFiniteError,
    StopOnSignal,
    StoppedBySignal,
    StopSignals,
)
from hybrid_cascade.engine.micro_batches import MicroBatchTrainer

from ..small_configs import load_toy
from .hooks.test_finite import Line
from .test_micro_batches import MeanOverImages, make_images

ROOT = Path(__file__).parent.parent.parent


def make_image(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8, 50, 50], [40, 10, 90, 60]])[: seed + 1])
    instances.gt_classes = torch.tensor([1, 3])[: seed + 1]
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:50, 8:50] = masks[1, 10:60, 40:90] = True
    instances.gt_masks = BitMasks(masks[: seed + 1])
    return {
        "image": torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8),
        "sem_seg": torch.randint(0, 9, (64, 96), generator=generator),
        "instances": instances,
    }


def add_gradients(model: torch.nn.Module, seed: int) -> None:
    """Add the gradients of an image; its proposals are sampled by its seed."""
    torch.manual_seed(seed)
    with EventStorage():
        sum(model([make_image(seed)]).values()).backward()


def check_gradients(name: str) -> None:
    """Compare the gradients of two processes with the mean of those of one, image by image.

    The model has frozen norms. Every loss is a mean over the RoIs of a process: it is the mean over
    images, not that over the RoIs of both, that one process has to compute too.
    """
    torch.manual_seed(comm.get_rank())  # the processes begin with other weights; DDP sends its own
    model = instantiate(load_toy(name)).train()
    parallel = create_ddp_model(model, device_ids=None)
    add_gradients(parallel, seed=comm.get_rank())
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    both = {n: p.grad.clone() for n, p in trained.items()}
    model.zero_grad()
    for seed in (0, 1):
        add_gradients(model, seed)
    for key, parameter in trained.items():
        torch.testing.assert_close(both[key], parameter.grad / 2, rtol=1e-3, atol=1e-5)
    assert max(gradient.abs().max() for gradient in both.values()) > 1e-2


def check_losses() -> None:
    x = [1.0, float("nan")][comm.get_rank()]
    model = Line()
    batches = [[{"file_name": f"of_process_{comm.get_rank() + 1}.png", "x": x}]]
    loop = SimpleTrainer(model, batches, torch.optim.SGD(model.parameters(), 0.1))
    loop.register_hooks([CheckLosses()])
    loop.before_train()
    try:
        with EventStorage() as loop.storage:
            loop.run_step()
    except NotFiniteError as error:
        assert "process 2 of 2 were loss_product = nan" in str(error), error
        assert "of_process_2.png" in str(error) and "of_process_1.png" not in str(error)
    else:
        raise AssertionError("the losses of the other process passed")


def check_micro_batches() -> None:
    """Compare a step of two processes, each in two parts, with that of one process."""
    images = make_images()
    one, model = MeanOverImages(), MeanOverImages()
    parallel = create_ddp_model(model, device_ids=None)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (one, model)]
    share = images[comm.get_rank() * 4 :][:4]
    for loop in (
        SimpleTrainer(one, [images], optimizers[0]),
        MicroBatchTrainer(parallel, [share], optimizers[1], 2),
    ):
        loop.iter = 0
        with EventStorage() as loop.storage:
            loop.run_step()
    assert model.sizes == [2, 2]
    for found, wanted in zip(model.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def check_signals() -> None:
    class Checkpointer:
        saved: list[str] = []

        def save(self, name, iteration):
            self.saved.append(name)

        def get_checkpoint_file(self):
            return self.saved[-1]

    class Trainer:
        model, checkpointer, iter, max_iter = Line(), Checkpointer(), 0, 10

    with StopSignals() as signals:
        hook = StopOnSignal(signals, period=100)
        hook.trainer = Trainer()
        hook.after_step()
        hook.trainer.iter = 1
        if comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            hook.after_step()
        except StoppedBySignal as stop:
            assert stop.code == 143 and Checkpointer.saved == ["model_0000001"]
        else:
            raise AssertionError("one process has a signal, and the other goes on")


def test_two_processes_have_the_gradients_of_one_and_stop_together():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "tests.engine.test_two_processes"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agreed: losses signals micro_batches htc_toy mnc_toy") == 2


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    check_losses()
    check_signals()
    check_micro_batches()
    check_gradients("htc_toy")
    check_gradients("mnc_toy")
    print("agreed: losses signals micro_batches htc_toy mnc_toy", flush=True)
    torch.distributed.destroy_process_group()
