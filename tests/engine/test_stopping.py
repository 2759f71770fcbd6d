"""A training that is stopped, by a signal or by losses and weights that are not finite."""

import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.engine import Trainer, load_config
from hybrid_cascade.engine import trainer as trainer_module
from hybrid_cascade.engine.hooks import NotFiniteError, StoppedBySignal

TOY = str(Path(__file__).parents[2] / "configs" / "quick_start" / "htc_toy.py")
TINY = [
    "train.max_iter=3",
    "train.checkpointer.period=100",
    "train.log_period=1",
    "train.num_panels=0",
    "train.report.enabled=False",
    "dataloader.train.total_batch_size=1",
    "dataloader.train.dataset.names=stopped_toy_scenes_train",
    "dataloader.test.dataset.names=stopped_toy_scenes_val",
    "model.roi_heads.box_heads.0.fc_dims=[16]",
    "model.roi_heads.box_predictors.0.input_shape.channels=16",
]


@pytest.fixture(scope="module", autouse=True)
def toy_scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "stopped_toy_scenes", num_train=4, num_val=1)


@pytest.fixture(autouse=True)
def no_evaluation(monkeypatch):
    """Most of these trainings are not about it."""
    monkeypatch.setattr(trainer_module, "evaluate", lambda *_, **__: {})
    monkeypatch.setattr(trainer_module, "DrawResults", HookBase)


class At(HookBase):
    """Call a function before an iteration."""

    def __init__(self, iteration, function):
        self.iteration, self.function = iteration, function

    def before_step(self):
        if self.trainer.iter == self.iteration:
            self.function()


def run(folder, *overrides, resume=False, hook=None):
    folder.mkdir(exist_ok=True)
    trainer = Trainer(load_config(TOY, [*TINY, f"train.output_dir={folder}", *overrides]))
    trainer.resume_or_load(resume)
    if hook:
        trainer.register_hooks([hook])
    trainer.train()


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def weights(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_a_run_that_a_signal_stops_resumes_bit_for_bit(tmp_path):
    torch.manual_seed(1)
    run(tmp_path / "whole")
    torch.manual_seed(1)
    with pytest.raises(StoppedBySignal) as caught:
        run(tmp_path / "parts", hook=At(1, kill(signal.SIGINT)))
    assert caught.value.code == 130
    assert checkpoints(tmp_path / "parts") == ["model_0000001.pth"]
    run(tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(tmp_path, monkeypatch):
    def evaluate(cfg, model, check_data):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr(trainer_module, "evaluate", evaluate)
    with pytest.raises(StoppedBySignal) as caught:
        run(tmp_path, "train.eval_period=1")
    assert caught.value.code == 143
    assert checkpoints(tmp_path) == ["model_0000000.pth"]


def test_a_signal_in_the_last_iteration_leaves_the_evaluation_to_the_resumed_run(
    tmp_path, monkeypatch
):
    evaluations = []
    monkeypatch.setattr(trainer_module, "evaluate", lambda *_, **__: evaluations.append(1) or {})
    with pytest.raises(StoppedBySignal):
        run(tmp_path, "train.max_iter=1", hook=At(0, kill(signal.SIGTERM)))
    assert checkpoints(tmp_path) == ["model_final.pth"] and not evaluations
    run(tmp_path, "train.max_iter=1", resume=True)
    assert evaluations == [1]


def test_a_loss_that_is_not_finite_stops_the_training_without_a_checkpoint_or_evaluation(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        trainer_module, "evaluate", lambda *_, **__: pytest.fail("it was evaluated")
    )
    with pytest.raises(NotFiniteError, match=r"iteration 0: .*loss_sem_seg = inf.*train/.*\.png"):
        run(tmp_path, "train.max_iter=1", "model.semantic_branch.loss_weight=1e39")
    assert checkpoints(tmp_path) == []


def test_weights_that_a_step_made_nan_are_not_written_over_those_before(tmp_path):
    class Spoil(HookBase):
        def after_step(self):
            if self.trainer.iter == 1:
                next(self.trainer.model.parameters()).data.fill_(float("nan"))

    folder = tmp_path / "out"
    folder.mkdir()
    options = ["train.checkpointer.period=1", "train.checkpointer.max_to_keep=1"]
    trainer = Trainer(load_config(TOY, [*TINY, f"train.output_dir={folder}", *options]))
    trainer.register_hooks([Spoil()])
    trainer._hooks.insert(0, trainer._hooks.pop())  # as if the optimizer did it
    with pytest.raises(NotFiniteError, match="after iteration 1, no checkpoint"):
        trainer.train()
    assert checkpoints(folder) == ["model_0000000.pth"]
