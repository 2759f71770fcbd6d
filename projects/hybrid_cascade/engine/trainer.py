"""Detectron2's `DefaultTrainer`, for both kinds of config, on GPUs and on CPUs."""

import logging
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from omegaconf import DictConfig
from torch import nn

from .build import build_model
from .checkpointer import FittingCheckpointer
from .config_checks import check_training
from .data_checks import check_annotation_files, check_test_data, check_train_data
from .evaluation import check_evaluation, evaluate
from .hooks import (
    AverageWeights,
    CheckLosses,
    CheckWeights,
    DrawResults,
    KeepBest,
    NotFiniteError,
    SeedEachIteration,
    StopOnSignal,
    StoppedBySignal,
    StopSignals,
    WandbWriter,
)
from .micro_batches import MicroBatchAMPTrainer, MicroBatchTrainer
from .partial_training import KeepFrozenStatistics, find_parts, freeze_parts, select_losses
from .run_config import as_run_config
from .sampler import ResumableTrainingSampler
from .trained_with import describe_training

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "weights_final"  # beside model_final, which has the state of the training, too


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
            ConfigError: for values of the config that can't be meant, see `check_training`.
            DatasetError: if the data can't be trained on or evaluated with this config.
            ValueError: if what the config measures can't be, see `check_evaluation`.
        """
        # The steps are those of DefaultTrainer's constructor, which can't be called: it wraps the
        # model by `create_ddp_model(model, broadcast_buffers=False)`. That takes GPUs only where
        # there are several processes, and it knows nothing of the options in `train.ddp`.
        TrainerBase.__init__(self)
        self.run_config = as_run_config(cfg)
        check_training(self.run_config, comm.get_world_size())
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
        options = self.run_config
        self._averages = AverageWeights(model, options.ema_decay) if options.ema_decay else None
        project, name = options.wandb
        self._wandb = WandbWriter(project, name, cfg.OUTPUT_DIR) if project else None
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = self._build_loop(model, self.build_train_loader(cfg), optimizer)
        self._skip_batches(0)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = FittingCheckpointer(
            self.evaluated_model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.checkpointer.trained_with = describe_training(model, cfg.DATASETS.TRAIN[0])
        self.register_hooks(self.build_hooks())

    @property
    def evaluated_model(self) -> nn.Module:
        """Return the model that is evaluated and saved: with averaged weights, if there are any."""
        return self._averages.model if self._averages else self.model

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
        if self.run_config.micro_batches > 1:
            loop = MicroBatchAMPTrainer if amp else MicroBatchTrainer
            return loop(model, data_loader, optimizer, self.run_config.micro_batches)
        return (AMPTrainer if amp else SimpleTrainer)(model, data_loader, optimizer)

    def build_writers(self) -> list[EventWriter]:
        return [*super().build_writers(), *([self._wandb] if self._wandb else [])]

    def build_hooks(self) -> list[hooks.HookBase]:
        default_hooks = super().build_hooks()
        period = self.cfg.SOLVER.CHECKPOINT_PERIOD
        self._check_losses = CheckLosses()
        self._trainer.register_hooks([self._check_losses])
        self._stop = StopOnSignal(StopSignals(), period)
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
        kinds = [type(hook) for hook in default_hooks]
        default_hooks.insert(kinds.index(hooks.EvalHook), self._stop)
        # Weights are what they will be once PreciseBN, if there is any, has run.
        writer = hooks.PeriodicCheckpointer if comm.is_main_process() else hooks.EvalHook
        default_hooks.insert(kinds.index(writer), CheckWeights(period))
        averages = [self._averages] if self._averages else []
        metric = self.run_config.best_metric
        best = [KeepBest(self.cfg.TEST.EVAL_PERIOD, metric)] if metric else []
        first = [self._check_losses, *seeds, statistics, *averages]
        return [*first, *default_hooks, DrawResults(), *best]

    def train(self) -> dict | None:
        """See `DefaultTrainer.train`.

        Raises:
            NotFiniteError: if losses or weights are not finite, before they are written down.
            StoppedBySignal: after SIGINT or SIGTERM, when a checkpoint is written.
        """
        with self._stop.signals:
            return super().train()

    def run_step(self) -> None:
        try:
            super().run_step()
        except NotFiniteError:
            raise
        except FloatingPointError as error:
            raise self._check_losses.explain(error) from error

    def after_train(self) -> None:
        if self.iter < self.max_iter:  # it was stopped, be it in its last iteration
            left_out = (hooks.EvalHook, DrawResults, KeepBest)
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, left_out)]
        super().after_train()
        if self.iter >= self.max_iter:
            self.checkpointer.save_weights(WEIGHTS_FILE)

    def test(self, cfg: CfgNode, model: nn.Module) -> dict:
        """See `evaluate`; the datasets are those of the user's config."""
        if model is self.model:
            model = self.evaluated_model
        try:
            with self._stop.signals.stop_at_once():
                return evaluate(self.run_config.cfg, model, check_data=False)
        except StoppedBySignal:
            self._stop.save(self._stop.signals.received, in_all_processes=False)
            raise

    def resume_or_load(self, resume: bool = True) -> None:
        """See `DefaultTrainer.resume_or_load`.

        Resumes from the newest checkpoint that is whole. If the training was complete already, but
        not its last file, writes that one again.

        Raises:
            FileExistsError: without `resume`, if the output folder has checkpoints.
            ValueError: if a checkpoint does not fit, or none of the folder's is whole.
        """
        last = self.checkpointer.find_checkpoint() if resume else ""
        if last:
            self.checkpointer.resume(last)
            self.start_iter = self.iter + 1
            if self.start_iter >= self.max_iter:
                self.checkpointer.save_if_incomplete("model_final", iteration=self.iter)
                logger.info("%s is of the last iteration: nothing is left to train", last)
        else:
            self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=False)
            if self._averages:
                self._averages.start()
        self._skip_batches(self.start_iter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._averages:
            self._averages.start()  # unless the state has weights and averages that differ
        super().load_state_dict(state_dict)

    def _skip_batches(self, number: int) -> None:
        """Let the sampler start after the batches of some iterations."""
        loader = getattr(self._trainer.data_loader, "_dataset", self._trainer.data_loader)
        batch_size = self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        groups = None
        if isinstance(loader, AspectRatioGroupedDataset):
            groups = [
                image.get("width", 0) > image.get("height", 0) for image in self.train_dataset
            ]
        self.sampler.skip(number, batch_size=batch_size, groups=groups)

    def _check_data(self, model: nn.Module) -> None:
        names = self.cfg.DATASETS.TRAIN
        check_train_data(self.run_config, names, self.train_dataset, model)
        check_test_data(self.run_config, model, names)
        check_evaluation(self.run_config.cfg, model)
