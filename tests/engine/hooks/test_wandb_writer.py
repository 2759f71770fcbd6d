import sys
from types import ModuleType, SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from hybrid_cascade.engine import ConfigError
from hybrid_cascade.engine.hooks import WandbWriter


@pytest.fixture
def service(monkeypatch):
    """Weights & Biases: the arguments of runs, what they logged and saved."""
    service = SimpleNamespace(started=[], logged=[], saved=[], finished=0)

    class Run:
        id = "abc123"

        def log(self, values, step):
            service.logged.append((step, values))

        def save(self, path, base_path, policy):
            service.saved.append(path)

        def finish(self):
            service.finished += 1

    def init(**options):
        service.started.append(options)
        return Run()

    module = ModuleType("wandb")
    module.init = init
    module.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return service


def write(writer, *iterations):
    with EventStorage() as storage:
        for iteration in iterations:
            storage.iter = iteration
            storage.put_scalar("loss", 10.0 + iteration)
            if iteration == 3:
                storage.put_scalar("segm/AP", 42.0, smoothing_hint=False)
            if iteration % 2:
                writer.write()
    writer.close()


def test_metrics_go_to_the_run_once_with_their_iterations(service, tmp_path):
    (tmp_path / "config.yaml").write_text("train: 1")
    writer = WandbWriter("plants", "first", str(tmp_path), window_size=1)
    assert not service.started  # a trainer that is only built starts no run
    write(writer, 0, 1, 2, 3, 4, 5)
    expected = {"project": "plants", "name": "first", "dir": str(tmp_path)}
    assert service.started == [{**expected, "id": None, "resume": "allow"}]
    assert service.logged == [
        (1, {"loss": 11.0}),
        (3, {"loss": 13.0, "segm/AP": 42.0}),
        (5, {"loss": 15.0}),
    ]
    assert service.saved == [str(tmp_path / "config.yaml")] and service.finished == 1


def test_a_resumed_training_continues_the_run_of_its_folder(service, tmp_path):
    for _ in range(2):
        write(WandbWriter("plants", "", str(tmp_path)), 1)
    assert [options["id"] for options in service.started] == [None, "abc123"]
    assert service.started[0]["name"] is None


def test_a_missing_package_is_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="train.wandb.project.*'plants'.*pip install wandb"):
        WandbWriter("plants", "", str(tmp_path))
