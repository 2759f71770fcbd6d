"""Read a LazyConfig (.py)."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import detectron2.data.transforms as T
import torch
import yaml
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import TrainingSampler
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, SemSegEvaluator
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from ...data import load_datasets, stuff_labels_of
from ...evaluation import FastCOCOEvaluator, LabelMapEvaluator
from ...evaluation.label_maps import read_label_map
from .base import InferenceOptions, RunConfig, loader_seed, read_further_models, seed_samples
from .errors import ConfigError, naming


class LazyRunConfig(RunConfig):
    """A LazyConfig with `model`, `train`, `dataloader`, `optimizer` and `lr_multiplier`."""

    KEYS = {
        "output_dir": "train.output_dir",
        "device": "train.device",
        "initial_weights": "train.init_checkpoint",
        "num_panels": "train.num_panels",
        "writes_report": "train.report.enabled",
        "report_images": "train.report.images",
        "report_stage_images": "train.report.stage_images",
        "evaluates_sem_seg": "train.evaluate_sem_seg",
        "channels_last": "train.channels_last",
        "inference_dtype": "train.inference.dtype",
        "fuses_layers": "train.inference.fuse_layers",
        "check_images": "train.check_images",
        "data_faults": "train.data_faults",
        "max_unreadable_images": "train.max_unreadable_images",
        "freeze": "train.freeze",
        "losses": "train.losses",
        "best_metric": "train.checkpointer.best_metric",
        "ema_decay": "train.ema_decay",
        "micro_batches": "train.micro_batches",
        "wandb_project": "train.wandb.project",
        "wandb_name": "train.wandb.name",
        "batch_size": "dataloader.train.total_batch_size",
        "train_datasets": "dataloader.train.dataset.names",
        "test_datasets": "dataloader.test.dataset.names",
        "stuff_labels": "model.stuff_labels",
    }

    def _build(self, key: str) -> Any:
        """Instantiate a section; an error names the part of it that can't be built."""
        try:
            with naming(key):
                return instantiate(self.cfg[key])
        except ConfigError as error:
            part = _failing_part(key, self.cfg[key])
            raise ConfigError(str(error).replace(key, part, 1)) from error.__cause__

    @property
    def text(self) -> str:
        plain = _plain(OmegaConf.to_container(self.cfg, resolve=False))
        return yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, width=100)

    @property
    def max_to_keep(self) -> int | None:
        return self.cfg.train.checkpointer.max_to_keep

    @property
    def log_period(self) -> int:
        return self.cfg.train.log_period

    @property
    def inference_options(self) -> InferenceOptions:
        options = OmegaConf.to_container(self.cfg.train.test_time, resolve=True)
        checkpoints = options.pop("checkpoints")
        models = read_further_models(checkpoints, "train.test_time.checkpoints")
        return InferenceOptions(models, **options)

    @property
    def outputs_panoptic_seg(self) -> bool:
        return self.cfg.model.get("output_panoptic_seg", False)

    @property
    def train_datasets(self) -> tuple[str, list[str]]:
        dataset = self.cfg.dataloader.train.dataset
        names = _as_list(dataset.names)
        if dataset._target_ is not get_detection_dataset_dicts:  # it may know others
            names = [name for name in names if name in DatasetCatalog.list()]
        return self.KEYS["train_datasets"], names

    @property
    def test_dataset_names(self) -> list[str]:
        return _as_list(self.cfg.dataloader.test.dataset.names)

    @property
    def proposal_files(self) -> list[str]:
        keys = (f"dataloader.{split}.dataset.proposal_files" for split in ("train", "test"))
        return [file for key in keys for file in _as_list(OmegaConf.select(self.cfg, key) or [])]

    def with_test_dataset(self, name: str) -> "LazyRunConfig":
        return self.replaced(test_datasets=name)

    def build_model(self) -> nn.Module:
        if self.cfg.model.get("stuff_labels") == []:
            labels = self._stuff_labels_of_dataset()
            if labels:
                return self.replaced(stuff_labels=labels).build_model()
        return self._build("model").to(self.cfg.train.device)

    def _stuff_labels_of_dataset(self) -> list[int]:
        names = OmegaConf.select(self.cfg, self.KEYS["train_datasets"])
        if not names:
            return []
        try:
            return stuff_labels_of(_as_list(names)[0])
        except ValueError:
            if self.outputs_panoptic_seg:
                raise
            return []

    def build_test_augmentations(self) -> tuple[list[T.Augmentation], str]:
        mapper = self.cfg.dataloader.test.mapper
        return list(instantiate(mapper.augmentations)), mapper.image_format

    def build_test_mapper(self) -> Callable[[dict], dict]:
        return instantiate(self.cfg.dataloader.test.mapper)

    def build_test_loaders(self) -> Iterator[tuple[str, Iterable[list[dict]]]]:
        # Several names are one dataset here, which goes by the first of them.
        yield self.test_dataset_names[0], instantiate(self.cfg.dataloader.test)

    def build_evaluators(self, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
        configs = self.cfg.dataloader.evaluator  # one, or a list
        evaluators = []
        for config in [configs] if isinstance(configs, DictConfig) else configs:
            args = {k: instantiate(v) for k, v in config.items() if k != "_target_"}
            if config._target_ in (COCOEvaluator, FastCOCOEvaluator, LabelMapEvaluator):
                args.setdefault("output_dir", folder)
            if config._target_ is SemSegEvaluator:
                args.setdefault("sem_seg_loading_fn", read_label_map)
            evaluators.append(config._target_(**args))
        return evaluators

    def check_evaluators(self) -> None:
        names = self.test_dataset_names
        if self.evaluates_sem_seg and len(names) > 1:
            raise ValueError(
                "train.evaluate_sem_seg measures one dataset, but dataloader.test.dataset.names is "
                f"{names}. Evaluate on one at a time."
            )

    def trainer_config(self) -> CfgNode:
        train = self.cfg.train
        cfg = get_cfg()
        cfg.OUTPUT_DIR = train.output_dir
        cfg.SEED = train.seed
        cfg.MODEL.WEIGHTS = self.initial_weights
        cfg.MODEL.DEVICE = train.device
        cfg.DATASETS.TRAIN = tuple(_as_list(self.cfg.dataloader.train.dataset.names))
        cfg.DATASETS.TEST = tuple(self.test_dataset_names)
        cfg.SOLVER.IMS_PER_BATCH = self.cfg.dataloader.train.total_batch_size
        cfg.SOLVER.MAX_ITER = train.max_iter
        cfg.SOLVER.CHECKPOINT_PERIOD = train.checkpointer.period
        cfg.SOLVER.AMP.ENABLED = train.amp.enabled
        for key, value in train.clip_gradients.items():
            cfg.SOLVER.CLIP_GRADIENTS[key.upper()] = value
        cfg.TEST.EVAL_PERIOD = train.eval_period
        cfg.freeze()
        return cfg

    @property
    def mask_format(self) -> str:
        mapper = self.cfg.dataloader.train.mapper
        while "mapper" in mapper:  # of Copy-Paste
            mapper = mapper.mapper
        target = mapper._target_
        target = locate(target) if isinstance(target, str) else target
        # A mapper of another kind reads masks in its own way.
        is_detectron2 = inspect.isclass(target) and issubclass(target, DatasetMapper)
        return mapper.get("instance_mask_format", "polygon") if is_detectron2 else "bitmask"

    @property
    def ddp_options(self) -> dict[str, Any]:
        return dict(self.cfg.train.ddp)

    def load_train_dataset(self, cfg: CfgNode) -> list[dict]:
        dataset = self.cfg.dataloader.train.dataset
        if dataset._target_ is not get_detection_dataset_dicts:
            return instantiate(dataset)
        return load_datasets(**{k: instantiate(v) for k, v in dataset.items() if k != "_target_"})

    def build_train_loader(
        self, cfg: CfgNode, dataset: list[dict], sampler: TrainingSampler
    ) -> Iterable[list[dict]]:
        loader = self.cfg.dataloader.train
        args = {k: instantiate(v) for k, v in loader.items() if k not in ("_target_", "dataset")}
        args.setdefault("sampler", sampler)
        if "mapper" in args:
            args["mapper"] = self.skipping_unreadable(args["mapper"])
        if loader._target_ is build_detection_train_loader:
            args = {**loader_seed(cfg), **args}
            if "mapper" in args:
                args["mapper"] = seed_samples(cfg, args["mapper"], args["sampler"])
        return loader._target_(dataset=dataset, **args)

    def build_optimizer(self, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        optimizer = deepcopy(self.cfg.optimizer)
        optimizer.params.model = model
        with naming("optimizer"):
            return maybe_add_gradient_clipping(cfg, instantiate(optimizer))

    def build_lr_scheduler(self, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return self._build("lr_multiplier")


def _as_list(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _plain(value: Any) -> Any:
    """Return a value in which functions, classes and objects are replaced by their names."""
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float):
        return value
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else repr(value)


def _failing_part(key: str, node: DictConfig | ListConfig) -> str:
    """Return the key of the smallest part of a section that can't be built."""
    for name in node if isinstance(node, DictConfig) else range(len(node)):
        part = node[name]
        if OmegaConf.is_config(part):
            try:
                instantiate(part)
            except Exception:
                return _failing_part(f"{key}.{name}", part)
    return key
