"""train_net.py as a user calls it: in one process, and in those that torchrun starts."""

import json
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

import hybrid_cascade.engine.launch  # noqa: F401  (`engine.launch` is the function)
from hybrid_cascade.engine import argument_parser, launch
from hybrid_cascade.engine.hooks import StoppedBySignal

launch_module = sys.modules["hybrid_cascade.engine.launch"]

ROOT = Path(__file__).parent.parent.parent
TOY = str(ROOT / "configs" / "quick_start" / "htc_toy.py")

CONFIG_OF_OWN_DATA = """
from detectron2.config import LazyConfig
from hybrid_cascade.data import register_toy_scenes

register_toy_scenes("{root}", "own_data", num_train=5, num_val=3)
toy = LazyConfig.load("{toy}")
model, dataloader, train = toy.model, toy.dataloader, toy.train
optimizer, lr_multiplier = toy.optimizer, toy.lr_multiplier
dataloader.train.dataset.names = "own_data_train"
dataloader.train.total_batch_size = 2
dataloader.test.dataset.names = "own_data_val"
train.max_iter = 2
train.num_panels = 1
train.output_dir = "{output}"
"""


@pytest.fixture
def own_config(tmp_path):
    path = tmp_path / "own.py"
    text = CONFIG_OF_OWN_DATA.format(root=tmp_path / "own", toy=TOY, output=tmp_path / "out")
    path.write_text(text)
    return str(path)


def train_net(*arguments, launcher=()):
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "train_net.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_command_line_trains_and_evaluates(own_config, tmp_path):
    code, text = train_net("--config-file", own_config)
    assert code == 0, text
    assert text.count("There is no GPU") == (0 if torch.cuda.is_available() else 1)
    trained = json.loads((tmp_path / "out" / "results.json").read_text())
    weights = tmp_path / "out" / "model_final.pth"
    code, text = train_net(
        "--config-file", own_config, "--eval-only", f"train.init_checkpoint={weights}"
    )
    assert code == 0, text
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == trained


def test_two_processes_under_torchrun_train_one_model(own_config, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    code, text = train_net("--config-file", own_config, launcher=launcher)
    assert code == 0, text
    assert "World size: 2" in text
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    assert any("total_loss" in json.loads(line) for line in lines)
    assert "segm" in json.loads((tmp_path / "out" / "results.json").read_text())


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_iters=3", "Unknown config key 'train.max_iters'"),
        ("train.init_checkpoint=nowhere.pth", "There is no checkpoint 'nowhere.pth'"),
    ],
)
def test_a_mistake_ends_with_an_exit_code_and_a_message(own_config, override, message):
    code, text = train_net("--config-file", own_config, override)
    assert code != 0
    assert message in text


def start_and_wait_for_an_iteration(config, folder, launcher=()):
    """Start an endless training; return it and the command."""
    command = [sys.executable, *launcher, str(ROOT / "train_net.py"), "--config-file", config]
    overrides = ["train.max_iter=100000", "train.log_period=1", "train.checkpointer.period=100000"]
    command += overrides
    with open(folder / "stderr.txt", "w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file)
    metrics = folder / "out" / "metrics.json"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    return process, command


def test_sigterm_writes_a_checkpoint_and_says_how_to_resume(own_config, tmp_path):
    process, command = start_and_wait_for_an_iteration(own_config, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 143
    resume = " ".join([*command[:2], "--resume", *command[2:]])
    assert f"To continue: {resume}" in (tmp_path / "stderr.txt").read_text()
    assert len(list((tmp_path / "out").glob("model_*.pth"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells processes that a parent died")
def test_the_processes_of_a_killed_torchrun_end_by_themselves(own_config, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    process, _ = start_and_wait_for_an_iteration(own_config, tmp_path, launcher)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    process.wait()
    end = time.monotonic() + 300
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert len(list((tmp_path / "out").glob("model_*.pth"))) == 1
    command = "torch.distributed.run --standalone --nproc_per_node=2"
    text = (tmp_path / "stderr.txt").read_text()
    assert command in text and "train_net.py --resume --config-file" in text


@pytest.fixture
def args(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(launch_module, "share_cores", lambda num_processes: None)
    return argument_parser().parse_args([])


def test_a_known_fault_ends_with_a_sentence_and_an_exit_code(args):
    def main(_args):
        raise FloatingPointError("The loss is not finite at iteration 3")

    with pytest.raises(SystemExit) as caught:
        launch(main, args)
    assert caught.value.code == "\nThe loss is not finite at iteration 3"  # Python exits with 1


def test_another_error_keeps_its_traceback(args):
    def main(_args):
        raise ValueError("unknown")

    with pytest.raises(ValueError, match="unknown"):
        launch(main, args)


def test_a_stopped_training_keeps_its_exit_code(args):
    def main(_args):
        raise StoppedBySignal(signal.SIGINT)

    with pytest.raises(SystemExit) as caught:
        launch(main, args)
    assert caught.value.code == 130


def test_the_time_limit_reaches_the_processes_of_torchrun(args, monkeypatch):
    limits = []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr(launch_module, "_end_with_parent", lambda: None)
    monkeypatch.setattr(launch_module.comm, "create_local_process_group", lambda size: None)
    distributed = torch.distributed
    monkeypatch.setattr(
        distributed, "init_process_group", lambda backend, timeout: limits.append(timeout)
    )
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    launch(lambda args: None, args)
    launch(lambda args: None, argument_parser().parse_args(["--timeout", "0.5"]))
    assert limits == [timedelta(minutes=15), timedelta(seconds=30)]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_a_time_limit_is_a_number_of_minutes(minutes, capsys):
    with pytest.raises(SystemExit):
        argument_parser().parse_args(["--timeout", minutes])
    assert "--timeout" in capsys.readouterr().err


def test_the_command_to_resume_has_the_option_before_the_overrides(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    options = ["--config-file", "x.py", "train.max_iter=3"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", *options])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "train_net.py", *options])
    expected = ["python", "-u", "train_net.py", "--resume", *options]
    assert launch_module.resume_command() == expected
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--resume", *options])
    monkeypatch.setattr(sys, "orig_argv", expected)
    assert launch_module.resume_command() == expected
