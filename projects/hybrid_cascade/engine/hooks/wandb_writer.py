"""Metrics of a training for Weights & Biases."""

import importlib.util
from itertools import groupby
from pathlib import Path

from detectron2.utils.events import EventWriter, get_event_storage

from ..run_config import ConfigError


class WandbWriter(EventWriter):
    """Send metrics to a run of Weights & Biases, which begins with the first of them.

    An output folder has one run: a training that is resumed continues it. Where there is no
    network, the environment variable WANDB_MODE=offline keeps it in the folder.
    """

    def __init__(self, project: str, name: str, folder: str, window_size: int = 20):
        """
        Args:
            project: the project of the run.
            name: of the run; "": Weights & Biases gives it one.
            folder: the output folder of the training.
            window_size: losses are medians over this many iterations, as in the log.

        Raises:
            ConfigError: if the package wandb is not installed.
        """
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                f"train.wandb.project (WANDB.PROJECT) is {project!r}, but the package wandb is "
                "missing: pip install wandb"
            )
        self._options = {"project": project, "name": name or None, "dir": folder}
        self._id_file = Path(folder, "wandb_run_id")
        self._window_size = window_size
        self._run = None
        self._last = -1

    def write(self) -> None:
        run = self._run = self._run or self._start()
        scalars = get_event_storage().latest_with_smoothing_hint(self._window_size)
        new = [(i, name, value) for name, (value, i) in scalars.items() if i > self._last]
        for iteration, group in groupby(sorted(new), key=lambda scalar: scalar[0]):
            run.log({name: value for _, name, value in group}, step=iteration)
            self._last = iteration

    def _start(self):
        import wandb

        known = self._id_file.read_text().strip() if self._id_file.exists() else None
        run = wandb.init(**self._options, id=known, resume="allow")
        self._id_file.write_text(run.id)
        config = self._id_file.with_name("config.yaml")
        if config.exists():
            run.save(str(config), base_path=str(config.parent), policy="now")
        return run

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
