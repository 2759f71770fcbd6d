"""Detectron2's `DefaultTrainer`, for both kinds of config, on GPUs and on CPUs."""

import logging
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from .build import build_model
from .checkpointer import FittingCheckpointer
from .data_checks import check_annotation_files, check_test_data, check_train_data
from .evaluation import check_evaluation, evaluate
from .hooks import DrawResults, SeedEachIteration
from .partial_training import KeepFrozenStatistics, find_parts, freeze_parts, select_losses
from .run_config import as_run_config
from .sampler import ResumableTrainingSampler

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for a LazyConfig or a CfgNode, with what it lacks.

    It evaluates what the config says, checks the data and the checkpoint before the first
    iteration, resumes with the images that would have come next, trains with several processes on
    CPUs too, and draws curves and panels at the end.

    Attributes:
        run_config: the config that the user wrote.
        cfg: what `DefaultTrainer` reads, scaled to the number of processes.
        train_dataset: the dataset dicts to train on.
        sampler: gives the order of the images, unless the config names another sampler.
    """

    def __init__(self, cfg: DictConfig | CfgNode):
        """
        Raises:
            DatasetError: if the data can't be trained on or evaluated with this config.
            ValueError: if what the config measures can't be, see `check_evaluation`.
        """
        # The steps are those of DefaultTrainer's constructor, which can't be called: it wraps the
        # model by `create_ddp_model(model, broadcast_buffers=False)`. That takes GPUs only where
        # there are several processes, and it knows nothing of the options in `train.ddp`.
        TrainerBase.__init__(self)
        self.run_config = as_run_config(cfg)
        cfg = self.auto_scale_workers(self.run_config.trainer_config(), comm.get_world_size())
        self.cfg = cfg
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        check_annotation_files(self.run_config, cfg.DATASETS.TRAIN, model)
        self.train_dataset = self.run_config.load_train_dataset(cfg)
        self._check_data(model)
        self.sampler = ResumableTrainingSampler(
            len(self.train_dataset), seed=cfg.SEED if cfg.SEED >= 0 else None
        )
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = self._build_loop(model, self.build_train_loader(cfg), optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = FittingCheckpointer(
            self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.register_hooks(self.build_hooks())

    def build_model(self, cfg: CfgNode) -> nn.Module:
        model = build_model(self.run_config.cfg).train()
        freeze_parts(model, self.run_config.freeze)
        if self.run_config.losses:
            select_losses(model, self.run_config.losses)
        logger.info("Model:\n%s", model)
        return model

    def build_optimizer(self, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return self.run_config.build_optimizer(cfg, model)

    def build_lr_scheduler(self, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        return self.run_config.build_lr_scheduler(cfg, optimizer)

    def build_train_loader(self, cfg: CfgNode) -> Iterable[list[dict]]:
        return self.run_config.build_train_loader(cfg, self.train_dataset, self.sampler)

    def _build_loop(
        self, model: nn.Module, data_loader: Iterable[list[dict]], optimizer: torch.optim.Optimizer
    ) -> SimpleTrainer:
        """Build what runs an iteration."""
        options = self.run_config.ddp_options
        amp = self.cfg.SOLVER.AMP.ENABLED
        if self.cfg.MODEL.DEVICE == "cpu":
            options["device_ids"] = None  # DistributedDataParallel takes them for GPUs only
            if amp:
                logger.warning("Mixed precision needs a GPU: training in float32")
                amp = False
        model = create_ddp_model(model, **options)
        return (AMPTrainer if amp else SimpleTrainer)(model, data_loader, optimizer)

    def build_hooks(self) -> list[hooks.HookBase]:
        default_hooks = super().build_hooks()
        for index, hook in enumerate(default_hooks):
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = self.run_config.max_to_keep
            elif isinstance(hook, hooks.PeriodicWriter):
                default_hooks[index] = hooks.PeriodicWriter(
                    self.build_writers(), self.run_config.log_period
                )
        seeds = [SeedEachIteration(self.cfg.SEED)] if self.cfg.SEED >= 0 else []
        model = getattr(self.model, "module", self.model)
        statistics = KeepFrozenStatistics(find_parts(model, self.run_config.freeze))
        return [*seeds, statistics, *default_hooks, DrawResults()]

    def test(self, cfg: CfgNode, model: nn.Module) -> dict:
        """See `evaluate`; the datasets are those of the user's config."""
        return evaluate(self.run_config.cfg, model, check_data=False)  # it was at the start

    def resume_or_load(self, resume: bool = True) -> None:
        """See `DefaultTrainer.resume_or_load`."""
        super().resume_or_load(resume)
        images_per_process = self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        self.sampler.first = self.start_iter * images_per_process

    def _check_data(self, model: nn.Module) -> None:
        names = self.cfg.DATASETS.TRAIN
        check_train_data(self.run_config, names, self.train_dataset, model)
        check_test_data(self.run_config, model, names)
        check_evaluation(self.run_config.cfg, model)
