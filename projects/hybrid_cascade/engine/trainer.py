"""Detectron2's `DefaultTrainer`, for both kinds of config, on GPUs and on CPUs."""

import logging
import os
import weakref
from collections.abc import Iterable
from copy import deepcopy

import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data import (
    DatasetCatalog,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig
from torch import nn

from ..data import build_train_mapper, check_dataset
from ..visualization import plot_training_curves
from . import evaluation
from .checkpointer import FittingCheckpointer
from .sampler import ResumableTrainingSampler

logger = logging.getLogger(__name__)


class SeedEachIteration(hooks.HookBase):
    """Make the random numbers of an iteration depend on the seed and its number only.

    A resumed run then draws the numbers that it would have drawn, and ends with the same weights
    bit for bit, as long as the data loader has no workers (whose state nobody saves) and the order
    of the images does not depend on grouping by aspect ratio.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self):
        step = self.trainer.iter * comm.get_world_size() + comm.get_rank()
        seed_all_rng((self.seed + step) % 2**32)


class DrawResults(hooks.HookBase):
    """Draw curves and panels when a training is complete."""

    def after_train(self):
        trainer = self.trainer
        if trainer.iter + 1 < trainer.max_iter or not comm.is_main_process():
            return
        folder = trainer.cfg.OUTPUT_DIR
        plot_training_curves(
            os.path.join(folder, "metrics.json"), os.path.join(folder, "training_curves.png")
        )
        model = trainer.model
        evaluation.draw_results(trainer.config, getattr(model, "module", model))


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for a CfgNode, with what it lacks.

    It evaluates COCO's metrics, checks the data and the checkpoint before the first iteration,
    resumes with the images that would have come next, trains on CPUs with several processes too,
    and draws curves and panels at the end.
    """

    def __init__(self, cfg: CfgNode, config: CfgNode | DictConfig | None = None):
        """
        Args:
            cfg: what `DefaultTrainer` reads.
            config: what the user wrote, if it is not `cfg`.

        Raises:
            DatasetError: if the data can't be trained on or evaluated with this config.
        """
        # Not DefaultTrainer's own constructor: it wraps the model for GPUs only, and its parts do
        # not come from a LazyConfig.
        TrainerBase.__init__(self)
        self.config = cfg if config is None else config
        self.sampler = None
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        self.train_dataset = self.load_train_dataset(cfg)
        _check_data(model, self.train_dataset, cfg.DATASETS.TRAIN[0])
        for name in evaluation.test_dataset_names(self.config):
            _check_data(model, DatasetCatalog.get(name), name)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        amp = cfg.SOLVER.AMP.ENABLED
        if amp and cfg.MODEL.DEVICE == "cpu":
            logger.warning("Mixed precision needs a GPU: training in float32")
            amp = False
        self._trainer = (AMPTrainer if amp else SimpleTrainer)(
            create_ddp_model(model, **self._ddp_options()), data_loader, optimizer
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = FittingCheckpointer(
            self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def build_model(self, cfg: CfgNode) -> nn.Module:
        model = evaluation.build_model(self.config).train()
        logger.info("Model:\n%s", model)
        return model

    def load_train_dataset(self, cfg: CfgNode) -> list[dict]:
        min_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        return get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=min_keypoints if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )

    def build_train_loader(self, cfg: CfgNode) -> Iterable[list[dict]]:
        sampler = None
        if cfg.DATALOADER.SAMPLER_TRAIN == "TrainingSampler":
            sampler = self._build_sampler(cfg)
        return build_detection_train_loader(
            cfg,
            dataset=self.train_dataset,
            mapper=build_train_mapper(cfg, self.train_dataset),
            sampler=sampler,
            **_loader_seed(cfg),
        )

    def _build_sampler(self, cfg: CfgNode) -> ResumableTrainingSampler:
        seed = cfg.SEED if cfg.SEED >= 0 else None
        self.sampler = ResumableTrainingSampler(len(self.train_dataset), seed=seed)
        return self.sampler

    def _ddp_options(self) -> dict:
        # DistributedDataParallel takes device_ids for GPUs only.
        on_cpu = {"device_ids": None} if self.cfg.MODEL.DEVICE == "cpu" else {}
        return {"broadcast_buffers": False, **on_cpu}

    def test(self, cfg, model, evaluators=None):
        return evaluation.evaluate(self.config, model)

    def build_hooks(self) -> list[hooks.HookBase]:
        seeds = [SeedEachIteration(self.cfg.SEED)] if self.cfg.SEED >= 0 else []
        return [*seeds, *super().build_hooks(), DrawResults()]

    def resume_or_load(self, resume: bool = True) -> None:
        """See `DefaultTrainer.resume_or_load`."""
        super().resume_or_load(resume)
        if self.sampler is not None:
            images_per_process = self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
            self.sampler.first = self.start_iter * images_per_process


class LazyTrainer(Trainer):
    """`Trainer` for a LazyConfig: the same hooks; model, data and schedule as it says."""

    def __init__(self, config: DictConfig):
        super().__init__(_default_trainer_config(config), config)

    def load_train_dataset(self, cfg: CfgNode) -> list[dict]:
        return instantiate(self.config.dataloader.train.dataset)

    def build_train_loader(self, cfg: CfgNode) -> Iterable[list[dict]]:
        loader = self.config.dataloader.train
        args = {k: instantiate(v) for k, v in loader.items() if k not in ("_target_", "dataset")}
        if "sampler" not in args:
            args["sampler"] = self._build_sampler(cfg)
        if loader._target_ is build_detection_train_loader:
            args = {**_loader_seed(cfg), **args}
        return loader._target_(dataset=self.train_dataset, **args)

    def build_optimizer(self, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        optimizer = deepcopy(self.config.optimizer)
        optimizer.params.model = model
        return maybe_add_gradient_clipping(cfg, instantiate(optimizer))

    def build_lr_scheduler(self, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        return instantiate(self.config.lr_multiplier)

    def build_hooks(self) -> list[hooks.HookBase]:
        train = self.config.train
        all_hooks = super().build_hooks()
        for index, hook in enumerate(all_hooks):
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = train.checkpointer.max_to_keep
            elif isinstance(hook, hooks.PeriodicWriter):
                all_hooks[index] = hooks.PeriodicWriter(self.build_writers(), train.log_period)
        return all_hooks

    def _ddp_options(self) -> dict:
        return {**super()._ddp_options(), **self.config.train.ddp}


def _default_trainer_config(config: DictConfig) -> CfgNode:
    """What `DefaultTrainer` reads of a CfgNode, from the `train` section of a LazyConfig."""
    train = config.train
    cfg = get_cfg()
    cfg.OUTPUT_DIR = train.output_dir
    cfg.SEED = train.seed
    cfg.MODEL.WEIGHTS = train.init_checkpoint or ""
    cfg.MODEL.DEVICE = train.device
    cfg.DATASETS.TRAIN = _as_tuple(config.dataloader.train.dataset.names)
    cfg.DATASETS.TEST = tuple(evaluation.test_dataset_names(config))
    cfg.SOLVER.IMS_PER_BATCH = config.dataloader.train.total_batch_size
    cfg.SOLVER.MAX_ITER = train.max_iter
    cfg.SOLVER.CHECKPOINT_PERIOD = train.checkpointer.period
    cfg.SOLVER.AMP.ENABLED = train.amp.enabled
    clip = train.clip_gradients
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip.enabled
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip.clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = clip.clip_value
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = clip.norm_type
    cfg.TEST.EVAL_PERIOD = train.eval_period
    cfg.freeze()
    return cfg


def _loader_seed(cfg: CfgNode) -> dict[str, int]:
    """With a seed of its own, a new data loader draws no number from the training's generator."""
    return {"seed": cfg.SEED} if cfg.SEED >= 0 else {}


def _as_tuple(names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _check_data(model: nn.Module, dataset: list[dict], name: str) -> None:
    """Check a data set against the model, where the model says what it expects."""
    # A detector of one shot has no ROI heads and counts its classes itself.
    num_classes = getattr(getattr(model, "roi_heads", model), "num_classes", None)
    if num_classes is None:
        return
    branch, targets = (getattr(model, f"semantic_{x}", None) for x in ("branch", "targets"))
    reads_maps = targets is not None and targets.source != "instances"
    check_dataset(
        dataset,
        name,
        num_classes=num_classes,
        semantic_num_classes=branch.num_classes if reads_maps else None,
        **({"semantic_ignore_value": branch.ignore_value} if reads_maps else {}),
    )
