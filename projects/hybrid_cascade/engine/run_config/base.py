"""The interface to a config of either kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any, ClassVar

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import TrainingSampler
from detectron2.evaluation import DatasetEvaluator
from omegaconf import DictConfig
from torch import nn

from ...data import CopyPasteMapper, SkipUnreadable
from ..sampler import ResumableTrainingSampler, SeedEachSample


@dataclass
class FurtherModel:
    """A model that detects together with that of a config."""

    weights: str
    config_file: str | None = None  # None: the model is that of the config
    overrides: tuple[Any, ...] = ()  # of its own config, as `load_config` takes them

    def __str__(self) -> str:
        return f"{self.weights!r} of {self.config_file}" if self.config_file else repr(self.weights)


@dataclass
class InferenceOptions:
    """Views and further models that take part in the detections of an image."""

    models: list[FurtherModel]  # beside that of the config
    short_sides: list[int]  # of the views, in pixels; []: the image as it comes
    max_size: int | list[int]  # bound of the longer side, in pixels, of all views or of each
    flip: bool  # mirrored views too

    @property
    def has_views(self) -> bool:
        """Tell whether there is any view beside the image itself."""
        return bool(self.short_sides or self.flip)


class RunConfig(ABC):
    """The values and parts that training, evaluation and export take from a config.

    The methods for training have an argument `cfg`: the result of `trainer_config`, scaled to the
    number of processes if the config says so (`DefaultTrainer.auto_scale_workers`).

    Attributes:
        cfg: the config itself.
        max_to_keep: checkpoints of a training that stay on the disk; None: all.
        log_period: iterations between two lines of the log.
    """

    KEYS: ClassVar[dict[str, str]]  # name of a value -> its key in the config
    max_to_keep: int | None = None
    log_period: int = 20

    def __init__(self, cfg: DictConfig | CfgNode):
        self.cfg = cfg

    def replaced(self, **values: Any) -> "RunConfig":
        """Return a copy of the config in which some of the values of `KEYS` are replaced."""
        cfg = deepcopy(self.cfg)
        for name, value in values.items():
            *sections, key = self.KEYS[name].split(".")
            reduce(getitem, sections, cfg)[key] = value
        return type(self)(cfg)

    def _value(self, name: str) -> Any:
        return reduce(getitem, self.KEYS[name].split("."), self.cfg)

    @property
    def output_dir(self) -> str:
        """Return the folder that a run writes to."""
        return self._value("output_dir")

    @property
    def initial_weights(self) -> str:
        """Return the checkpoint to train from or to evaluate; "" if there is none."""
        return self._value("initial_weights") or ""

    @property
    def num_panels(self) -> int:
        """Return how many test images are drawn stage by stage."""
        return self._value("num_panels")

    @property
    def writes_report(self) -> bool:
        """Tell whether report.html is written after training and evaluation."""
        return self._value("writes_report")

    @property
    def report_images(self) -> int:
        """Return how many images the report shows."""
        return self._value("report_images")

    @property
    def report_stage_images(self) -> int:
        """Return over how many images the report measures AP by stage."""
        return self._value("report_stage_images")

    @property
    @abstractmethod
    def text(self) -> str:
        """Return the config as a text, in YAML."""

    @property
    def evaluates_sem_seg(self) -> bool:
        """Tell whether the model returns "sem_seg", which is measured by label maps."""
        return self._value("evaluates_sem_seg")

    @property
    def channels_last(self) -> bool | None:
        """Return whether convolutions are channels-last; None: on CPUs only."""
        return self._value("channels_last")

    @property
    def device_type(self) -> str:
        """Return "cpu" or "cuda", without the number of a GPU."""
        return self._value("device").partition(":")[0]

    @property
    def inference_dtype(self) -> str:
        """Return in which type models infer: "float32", "bfloat16" or "auto"."""
        return self._value("inference_dtype")

    @property
    def fuses_layers(self) -> bool:
        """Tell whether layers are joined for inference."""
        return self._value("fuses_layers")

    @property
    def decodes_images(self) -> bool:
        """Tell whether all pixels are read before a training or evaluation, to find bad files."""
        return self._value("check_images") == "decode"

    @property
    def stops_at_data_faults(self) -> bool:
        """Tell whether faults in annotations and images are errors, or only logged."""
        return self._value("data_faults") == "stop"

    @property
    def max_unreadable_images(self) -> int:
        """Return how many image files a process of a training may skip."""
        return self._value("max_unreadable_images")

    def skipping_unreadable(self, mapper: Callable[[dict], dict]) -> Callable[[dict], dict | None]:
        """Return the mapper, so that it skips images that turn unreadable."""
        limit, key = self.max_unreadable_images, self.KEYS["max_unreadable_images"]
        if not isinstance(mapper, CopyPasteMapper):
            return SkipUnreadable(mapper, limit, key)
        # Copy-Paste reads two images: the wrapper has to know which one it is.
        mapper.mapper = SkipUnreadable(mapper.mapper, limit, key)
        return mapper

    @property
    def freeze(self) -> list[str]:
        """Return the names of the parts of the model that are not trained."""
        return list(self._value("freeze"))

    @property
    def losses(self) -> list[str]:
        """Return the patterns of the losses that are trained on; []: all losses."""
        return list(self._value("losses"))

    @property
    def best_metric(self) -> str:
        """Return the metric of which the best weights are kept; "": none."""
        return self._value("best_metric")

    @property
    def ema_decay(self) -> float:
        """Return the decay of the moving average of the weights; 0: no average."""
        return self._value("ema_decay")

    @property
    def micro_batches(self) -> int:
        """Return in how many parts the images of a batch go through the model."""
        return self._value("micro_batches")

    @property
    def wandb(self) -> tuple[str, str]:
        """Return the project and the name of the run of Weights & Biases; "" each: none."""
        return self._value("wandb_project"), self._value("wandb_name")

    @property
    @abstractmethod
    def inference_options(self) -> InferenceOptions:
        """Return the views and further models of an evaluation outside of a training.

        Raises:
            ValueError: if the config does not name further models as it should.
        """

    @property
    @abstractmethod
    def outputs_panoptic_seg(self) -> bool:
        """Tell whether the model returns panoptic segmentations."""

    @property
    def train_datasets(self) -> tuple[str, list[str]]:
        """Return the key of the datasets to train on, and those that have to be registered."""
        return self.KEYS["train_datasets"], list(self._value("train_datasets"))

    @property
    @abstractmethod
    def test_dataset_names(self) -> list[str]:
        """Return the registered names of the datasets to evaluate on."""

    @property
    @abstractmethod
    def proposal_files(self) -> list[str]:
        """Return the files of proposals that Detectron2 loads with the datasets."""

    @abstractmethod
    def with_test_dataset(self, name: str) -> "RunConfig":
        """Return a copy of the config that evaluates on another dataset alone."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Build the model, on the device of the config.

        Raises:
            ConfigError: if it can't be built; names the part.
        """

    @abstractmethod
    def build_test_augmentations(self) -> tuple[list[T.Augmentation], str]:
        """Build the augmentations of test images; return them and "BGR" or "RGB"."""

    @abstractmethod
    def build_test_mapper(self) -> Callable[[dict], dict]:
        """Build the function that turns a dataset dict into an input of the model."""

    @abstractmethod
    def build_test_loaders(self) -> Iterator[tuple[str, Iterable[list[dict]]]]:
        """Build the loaders to evaluate on, one at a time, each with the name of its dataset."""

    @abstractmethod
    def build_evaluators(self, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
        """Build the evaluators of a dataset, which write into the folder.

        Semantic and panoptic ones are not among them, unless the config or the dataset names them.
        """

    @abstractmethod
    def check_evaluators(self) -> None:
        """Raise a ValueError if it is clear that `build_evaluators` will fail for a test dataset.

        The evaluators read the dataset. This does not.
        """

    @abstractmethod
    def trainer_config(self) -> CfgNode:
        """Return the config that `DefaultTrainer` reads."""

    @property
    @abstractmethod
    def mask_format(self) -> str:
        """Return what the training mapper makes of masks, "polygon" or "bitmask"."""

    @property
    @abstractmethod
    def ddp_options(self) -> dict[str, Any]:
        """Return the arguments of `create_ddp_model`."""

    @abstractmethod
    def load_train_dataset(self, cfg: CfgNode) -> list[dict]:
        """Load the dataset dicts to train on."""

    @abstractmethod
    def build_train_loader(
        self, cfg: CfgNode, dataset: list[dict], sampler: TrainingSampler
    ) -> Iterable[list[dict]]:
        """Build the training data loader, with the sampler unless the config names another."""

    @abstractmethod
    def build_optimizer(self, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer, with gradient clipping if the config wants it."""

    @abstractmethod
    def build_lr_scheduler(self, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Build the schedule as the hook `LRScheduler` takes it: a scheduler or a multiplier."""


def read_further_models(entries: Any, key: str) -> list[FurtherModel]:
    """Read a list of checkpoints.

    Args:
        entries: weights of the same config, or lists of a config file, weights, and overrides.
        key: where they are in the config.

    Raises:
        ValueError: for anything else; names the key and the entry.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError(f"{key} is {entries!r}, but has to be a list: [b.pth]")
    models = []
    for entry in entries:
        if isinstance(entry, str):
            models.append(FurtherModel(entry))
            continue
        is_list = isinstance(entry, Sequence) and len(entry) > 1
        if not is_list or not all(isinstance(part, str) for part in entry[:2]):
            raise ValueError(
                f"{key} has the entry {entry!r}. Each is a file of weights, or a list of a config "
                "file, its weights and any overrides: [configs/b.py, b.pth]"
            )
        config_file, weights, *overrides = entry
        models.append(FurtherModel(weights, config_file, tuple(overrides)))
    return models


def seed_samples(
    cfg: CfgNode, mapper: Callable[[dict], Any], sampler: TrainingSampler
) -> Callable[[dict], Any]:
    """Return the mapper of a training data loader, `SeedEachSample` if the run has a seed."""
    has_seed = cfg.SEED >= 0 and isinstance(sampler, ResumableTrainingSampler)
    return SeedEachSample(mapper, sampler, cfg.SEED) if has_seed else mapper


def loader_seed(cfg: CfgNode) -> dict[str, int]:
    """Return the seed of the training data loader, as an argument; {} if the run has none.

    With a seed of its own, a new loader draws no number from the generator of the training.
    """
    return {"seed": cfg.SEED} if cfg.SEED >= 0 else {}
