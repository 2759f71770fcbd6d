"""train_net.py as a user calls it: in one process, and in those that torchrun starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29511")
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
