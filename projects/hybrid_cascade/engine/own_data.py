"""Fit a LazyConfig to the user's data: classes, kind of masks, images of a step, schedule.

A config asks for it with a section

    data = L(OwnData)(train=None, train_images=None, val=None, val_images=None, epochs=None)

and with "auto" as the value of anything that is to be computed. All other values stay, so that
what is written in the config or on the command line counts. docs/own_data.md has the rules.
"""

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ..data import register_coco_json, summarize_coco_json
from ..data.datasets import CocoSummary
from .cores import available_cores
from .run_config.errors import ConfigError

logger = logging.getLogger(__name__)

AUTO = "auto"
IMAGES_PER_PROCESS = 2
MOST_WORKERS = 4  # of each process
# Detectron2's "1x": learning rate and warm-up of 12 epochs of COCO, with 16 images a step.
COCO_IMAGES, COCO_EPOCHS, MOST_EPOCHS = 118_287, 12, 100
LR, LR_BATCH, WARMUP = 0.02, 16, 1000
NUM_EVALUATIONS = 10


@dataclass
class OwnData:
    """The user's data: annotation files in COCO's format, and the folders of their images.

    Attributes:
        train: annotations to train on. None for an evaluation.
        train_images: the folder that each `file_name` in `train` is relative to.
        val, val_images: the same to evaluate on.
        epochs: how often each image is trained on; None: the fewer images, the more often.

    Raises:
        ConfigError: for files and folders that are not there.
    """

    train: str | None = None
    train_images: str | None = None
    val: str | None = None
    val_images: str | None = None
    epochs: float | None = None

    def __post_init__(self):
        for field in fields(self)[:4]:
            path = getattr(self, field.name)
            if path is None:
                continue
            is_folder = field.name.endswith("_images")
            if not isinstance(path, str) or not (
                os.path.isdir(path) if is_folder else os.path.isfile(path)
            ):
                kind = "the folder of the images" if is_folder else "a file in COCO's format"
                raise ConfigError(f"data.{field.name} is {path!r}, but has to be {kind}")
        if self.epochs is not None and not (
            isinstance(self.epochs, Real) and 0 < self.epochs < math.inf
        ):
            raise ConfigError(f"data.epochs is {self.epochs!r}, but has to be a number above 0")

    @property
    def missing(self) -> list[str]:
        """The keys without a value that a training needs."""
        names = [field.name for field in fields(self)[:4]]
        return [f"data.{name}" for name in names if getattr(self, name) is None]

    @property
    def is_half_given(self) -> bool:
        """Tell whether a file is given without its folder, or the reverse, or train without val."""
        is_given = [getattr(self, field.name) is not None for field in fields(self)[:4]]
        return is_given not in ([True] * 4, [False, False, True, True], [False] * 4)


def fit_to_own_data(cfg: DictConfig, config_file: str) -> None:
    """Register the data of a config that asks for it, and replace each "auto" in it.

    Args:
        cfg: a LazyConfig with its overrides. Changed in place; nothing happens to one whose `data`
            is no `OwnData`.
        config_file: for error messages.

    Raises:
        ConfigError: if keys of `data` are missing, or have values that can't be meant.
        DatasetError: if an annotation file can't be read.
    """
    data = _data_of(cfg)
    if data is None:
        return
    num_classes = OmegaConf.select(cfg, "model.roi_heads.num_classes")
    if data.is_half_given or (data.val is None and num_classes == AUTO):
        raise ConfigError(_describe_missing(data, config_file))
    summaries = {
        split: _summarize(split, getattr(data, split), getattr(data, f"{split}_images"))
        for split in ("train", "val")
        if getattr(data, split) is not None
    }
    train = summaries.get("train")
    if train is not None:
        _check_masks(cfg, data, train)
    for key, value_of in _rules(cfg, data, summaries).items():
        if OmegaConf.select(cfg, key) == AUTO:
            OmegaConf.update(cfg, key, value_of())
    if train is not None:
        _log(cfg, data, train)


def check_names_are_given(cfg: DictConfig | CfgNode, names: list[str]) -> None:
    """Raise a ConfigError if datasets of a config are "auto", since there are no data for them."""
    data = _data_of(cfg) if AUTO in names else None
    if data is not None:
        raise ConfigError(_describe_missing(data, "…"))


def _data_of(cfg: DictConfig | CfgNode) -> OwnData | None:
    section = None if isinstance(cfg, CfgNode) else cfg.get("data")
    target = section.get("_target_") if isinstance(section, DictConfig) else None
    target = locate(target) if isinstance(target, str) else target
    if target is not OwnData:
        return None
    return OwnData(**{key: value for key, value in section.items() if key != "_target_"})


def _summarize(split: str, json_file: str, images: str) -> CocoSummary:
    try:
        register_coco_json(json_file, json_file, images)
    except ValueError as error:
        raise ConfigError(
            f"data.{split}_images is {images!r}, but '{json_file}' is in use with another folder"
        ) from error
    summary = summarize_coco_json(json_file)
    # As Detectron2 does when it loads the images, which a prediction does not.
    MetadataCatalog.get(json_file).thing_classes = summary.class_names
    return summary


def _rules(
    cfg: DictConfig, data: OwnData, summaries: dict[str, CocoSummary]
) -> dict[str, Callable[[], Any]]:
    """Return what computes each value. Later ones depend on earlier ones."""
    train = summaries.get("train")
    has_run_lengths = train is not None and train.num_run_lengths > 0
    num_classes = next((x.num_classes for x in summaries.values()), None)
    workers = max(1, min(MOST_WORKERS, available_cores() // comm.get_local_size()))

    def batch() -> int:
        return _whole(cfg, "dataloader.train.total_batch_size")

    def steps() -> int:
        return _whole(cfg, "train.max_iter")

    return {
        "dataloader.train.dataset.names": lambda: data.train or AUTO,
        "dataloader.test.dataset.names": lambda: data.val or AUTO,
        "dataloader.train.num_workers": lambda: workers,
        "dataloader.test.num_workers": lambda: workers,
        "dataloader.train.mapper.instance_mask_format": lambda: (
            "bitmask" if has_run_lengths else "polygon"
        ),
        "dataloader.train.total_batch_size": lambda: IMAGES_PER_PROCESS * comm.get_world_size(),
        "model.roi_heads.num_classes": lambda: num_classes,
        "model.semantic_branch.num_classes": lambda: _whole(cfg, "model.roi_heads.num_classes") + 1,
        "train.max_iter": lambda: _max_iter(cfg, data, train, batch()),
        "train.eval_period": lambda: math.ceil(steps() / NUM_EVALUATIONS),
        "train.checkpointer.period": lambda: math.ceil(steps() / NUM_EVALUATIONS),
        "optimizer.lr": lambda: LR * batch() / LR_BATCH,
        "lr_multiplier.warmup_length": lambda: min(0.1, WARMUP / steps()),
    }


def _max_iter(
    cfg: DictConfig, data: OwnData, train: CocoSummary | None, images_per_step: int
) -> int:
    num_images = COCO_IMAGES
    if train is not None:
        filters = OmegaConf.select(cfg, "dataloader.train.dataset.filter_empty", default=True)
        num_images = max(1, train.num_labelled_images if filters else train.num_images)
    epochs = data.epochs or default_epochs(num_images)
    return max(1, math.ceil(epochs * num_images / images_per_step))


def default_epochs(num_images: int) -> float:
    """Return how often to train on each of so many images: 12 times COCO's, and 100 of 200.

    It falls with the cube root of the number of images, between these bounds.
    """
    epochs = COCO_EPOCHS * (COCO_IMAGES / num_images) ** (1 / 3)
    return min(MOST_EPOCHS, max(COCO_EPOCHS, epochs))


def _whole(cfg: DictConfig, key: str) -> int:
    value = OmegaConf.select(cfg, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} is {value!r}, but has to be a whole number of 1 or more")
    return value


def _check_masks(cfg: DictConfig, data: OwnData, train: CocoSummary) -> None:
    has_mask_heads = "mask_heads" in OmegaConf.select(cfg, "model.roi_heads", default={})
    if has_mask_heads and train.num_instances and not train.num_masks:
        raise ConfigError(
            f"data.train is {data.train!r}, which has boxes but no masks (`segmentation`), and the "
            "model has masks to train. Take configs/own_data/cascade_rcnn_r50_fpn.py for boxes."
        )


def _describe_missing(data: OwnData, config_file: str) -> str:
    return (
        f"{' and '.join(data.missing)} {'is' if len(data.missing) == 1 else 'are'} missing. Start "
        f"a training by ./train_net.py --config-file {config_file} data.train=train.json "
        "data.train_images=FOLDER data.val=val.json data.val_images=FOLDER (an evaluation needs "
        "the last two), or give model.roi_heads.num_classes to use trained weights without data."
    )


def _log(cfg: DictConfig, data: OwnData, train: CocoSummary) -> None:
    batch = cfg.dataloader.train.total_batch_size
    max_iter = cfg.train.max_iter
    logger.info(
        "%s: %d images with %d instances (%d with masks) of %d classes; %s iterations of %s images",
        *(data.train, train.num_labelled_images, train.num_instances, train.num_masks),
        *(train.num_classes, max_iter, batch),
    )
    if torch.cuda.is_available() and torch.cuda.device_count() > comm.get_local_size():
        logger.info(
            "The run uses %d of %d GPUs: see --num-gpus",
            *(comm.get_local_size(), torch.cuda.device_count()),
        )
