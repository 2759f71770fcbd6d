"""Read a CfgNode (.yaml)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.detection_utils import build_augmentation
from detectron2.data.samplers import TrainingSampler
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from torch import nn

from ...data import build_train_mapper, load_datasets
from ...evaluation import LabelMapEvaluator
from ...evaluation.by_dataset import SEM_SEG_TYPES, build_evaluators_of, check_evaluator_type
from .base import InferenceOptions, RunConfig, loader_seed, read_further_models, seed_samples
from .errors import naming


class YamlRunConfig(RunConfig):
    """A CfgNode with the keys of `add_hybrid_cascade_config`."""

    KEYS = {
        "output_dir": "OUTPUT_DIR",
        "device": "MODEL.DEVICE",
        "initial_weights": "MODEL.WEIGHTS",
        "num_panels": "TEST.NUM_PANELS",
        "writes_report": "TEST.REPORT.ENABLED",
        "report_images": "TEST.REPORT.IMAGES",
        "report_stage_images": "TEST.REPORT.STAGE_IMAGES",
        "evaluates_sem_seg": "TEST.EVALUATE_SEM_SEG",
        "channels_last": "MODEL.CHANNELS_LAST",
        "inference_dtype": "TEST.INFERENCE.DTYPE",
        "fuses_layers": "TEST.INFERENCE.FUSE_LAYERS",
        "check_images": "DATALOADER.CHECK_IMAGES",
        "data_faults": "DATALOADER.DATA_FAULTS",
        "max_unreadable_images": "DATALOADER.MAX_UNREADABLE_IMAGES",
        "freeze": "SOLVER.FREEZE",
        "losses": "SOLVER.LOSSES",
        "best_metric": "SOLVER.BEST_CHECKPOINT_METRIC",
        "ema_decay": "SOLVER.EMA_DECAY",
        "micro_batches": "SOLVER.MICRO_BATCHES",
        "wandb_project": "WANDB.PROJECT",
        "wandb_name": "WANDB.NAME",
        "batch_size": "SOLVER.IMS_PER_BATCH",
        "train_datasets": "DATASETS.TRAIN",
        "test_datasets": "DATASETS.TEST",
    }

    @property
    def text(self) -> str:
        return self.cfg.dump()

    @property
    def inference_options(self) -> InferenceOptions:
        views = self.cfg.TEST.AUG
        return InferenceOptions(
            models=read_further_models(self.cfg.TEST.CHECKPOINTS, "TEST.CHECKPOINTS"),
            short_sides=list(views.MIN_SIZES) if views.ENABLED else [],
            max_size=list(views.MAX_SIZES) or views.MAX_SIZE,
            flip=views.ENABLED and views.FLIP,
        )

    @property
    def outputs_panoptic_seg(self) -> bool:
        model = self.cfg.MODEL
        if model.META_ARCHITECTURE == "PanopticFPN":
            return model.PANOPTIC_FPN.COMBINE.ENABLED
        return (
            model.META_ARCHITECTURE == "SemanticRCNN" and model.SEMANTIC_BRANCH.OUTPUT_PANOPTIC_SEG
        )

    @property
    def test_dataset_names(self) -> list[str]:
        return list(self.cfg.DATASETS.TEST)

    @property
    def proposal_files(self) -> list[str]:
        datasets = self.cfg.DATASETS
        files = [*datasets.PROPOSAL_FILES_TRAIN, *datasets.PROPOSAL_FILES_TEST]
        return files if self.cfg.MODEL.LOAD_PROPOSALS else []

    def with_test_dataset(self, name: str) -> "YamlRunConfig":
        return self.replaced(test_datasets=(name,))

    def build_model(self) -> nn.Module:
        with naming("MODEL"):
            return build_model(self.cfg)

    def build_test_augmentations(self) -> tuple[list[T.Augmentation], str]:
        return build_augmentation(self.cfg, is_train=False), self.cfg.INPUT.FORMAT

    def build_test_mapper(self) -> Callable[[dict], dict]:
        return DatasetMapper(self.cfg, is_train=False)

    def build_test_loaders(self) -> Iterator[tuple[str, Iterable[list[dict]]]]:
        for name in self.test_dataset_names:
            yield name, build_detection_test_loader(self.cfg, name)

    def build_evaluators(self, dataset_name: str, folder: str) -> list[DatasetEvaluator]:
        evaluators = build_evaluators_of(dataset_name, folder)
        # Detectron2's train_net.py measures its PanopticFPN's labels on such a dataset.
        is_panoptic_fpn = self.cfg.MODEL.META_ARCHITECTURE == "PanopticFPN"
        if is_panoptic_fpn and check_evaluator_type(dataset_name) == "coco_panoptic_seg":
            evaluators.append(LabelMapEvaluator(dataset_name, output_dir=folder))
        return evaluators

    def check_evaluators(self) -> None:
        architecture = self.cfg.MODEL.META_ARCHITECTURE
        for name in self.test_dataset_names:
            kind = check_evaluator_type(name)
            needs_sem_seg = kind in SEM_SEG_TYPES and not self.evaluates_sem_seg
            if needs_sem_seg and architecture in ("GeneralizedRCNN", "SemanticRCNN", "SSD"):
                raise ValueError(
                    f"The dataset '{name}' has the `evaluator_type` {kind!r}, which measures "
                    f'"sem_seg", but this {architecture} returns none. Set TEST.EVALUATE_SEM_SEG '
                    "True, with a semantic branch (MODEL.META_ARCHITECTURE SemanticRCNN)."
                )

    def trainer_config(self) -> CfgNode:
        return self.cfg

    @property
    def mask_format(self) -> str:
        return self.cfg.INPUT.MASK_FORMAT

    @property
    def ddp_options(self) -> dict[str, Any]:
        return {"broadcast_buffers": False}  # as DefaultTrainer

    def load_train_dataset(self, cfg: CfgNode) -> list[dict]:
        min_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        return load_datasets(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=min_keypoints if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )

    def build_train_loader(
        self, cfg: CfgNode, dataset: list[dict], sampler: TrainingSampler
    ) -> Iterable[list[dict]]:
        if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
            sampler = None  # Detectron2 builds the one that the config names
        return build_detection_train_loader(
            cfg,
            dataset=dataset,
            mapper=seed_samples(
                cfg, self.skipping_unreadable(build_train_mapper(cfg, dataset)), sampler
            ),
            sampler=sampler,
            **loader_seed(cfg),
        )

    def build_optimizer(self, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        with naming("SOLVER"):
            return build_optimizer(cfg, model)

    def build_lr_scheduler(self, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        with naming("SOLVER"):
            return build_lr_scheduler(cfg, optimizer)
