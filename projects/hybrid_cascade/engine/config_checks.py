"""Check the values of a config before anything is built: one table, for both kinds of config."""

import difflib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .config_rules import (
    CALLABLE,
    NAME,
    NONE,
    PROBABILITY,
    SWITCH,
    TEXT,
    Rule,
    above,
    ascending,
    below_one,
    list_of,
    matching,
    nested,
    number,
    one_of,
    one_or_list_of,
    values_of_dict,
    whole,
)
from .own_data import check_names_are_given
from .run_config import ConfigError, RunConfig

_POSITIVE, _NOT_NEGATIVE = above(0), number(0)
_SIDES = one_or_list_of(whole(0))  # 0: images keep their size
_WEIGHT = _NOT_NEGATIVE | values_of_dict(_NOT_NEGATIVE)
_NORM = (
    one_of("", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
    | CALLABLE
    | NONE
)
_POOLER_TYPE = one_of("ROIAlignV2", "ROIAlign", "ROIPool", "ROIAlignRotated")
_COLOURS = one_of("RGB", "BGR", "L", "YUV-BT.601")
_DEVICE = matching(r"(cpu|cuda|mps|xpu)(:\d+)?", "a device such as 'cuda', 'cuda:1' or 'cpu'")
_TOPK = whole(1) | one_of(-1)  # -1: all
_SEED = whole(high=2**31 - 1)
_MASK_FORMAT = one_of("polygon", "bitmask")

# What values may be: the key in a LazyConfig, the key in a CfgNode, the rule. `**` stands for any
# number of parts of a key, none too, and `*` for one. A key that a config lacks is not missed. Of
# `model`, `dataloader`, `optimizer` and `lr_multiplier`, arguments are checked of Detectron2's and
# this project's functions and classes only: others may have arguments of the same name.
TABLE: list[tuple[str | None, str | None, Rule]] = [
    ("train.output_dir", "OUTPUT_DIR", NAME),
    ("train.init_checkpoint", "MODEL.WEIGHTS", TEXT | NONE),
    ("train.max_iter", "SOLVER.MAX_ITER", whole(1)),
    ("train.amp.enabled", "SOLVER.AMP.ENABLED", SWITCH),
    ("train.ddp.*", None, SWITCH),
    ("train.checkpointer.period", "SOLVER.CHECKPOINT_PERIOD", whole(1)),
    ("train.checkpointer.max_to_keep", None, whole(1) | NONE),
    ("train.eval_period", "TEST.EVAL_PERIOD", whole()),
    ("train.log_period", None, whole(1)),
    ("train.device", "MODEL.DEVICE", _DEVICE),
    ("train.seed", "SEED", _SEED),
    ("train.cudnn_benchmark", "CUDNN_BENCHMARK", SWITCH),
    ("train.clip_gradients.enabled", "SOLVER.CLIP_GRADIENTS.ENABLED", SWITCH),
    ("train.clip_gradients.clip_type", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", one_of("norm", "value")),
    ("train.clip_gradients.clip_value", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", _POSITIVE),
    (
        "train.clip_gradients.norm_type",
        "SOLVER.CLIP_GRADIENTS.NORM_TYPE",
        above(0, finite=False),
    ),
    ("train.num_panels", "TEST.NUM_PANELS", whole(0)),
    ("train.report.enabled", "TEST.REPORT.ENABLED", SWITCH),
    ("train.report.images", "TEST.REPORT.IMAGES", whole(0)),
    ("train.report.stage_images", "TEST.REPORT.STAGE_IMAGES", whole(0)),
    ("train.evaluate_sem_seg", "TEST.EVALUATE_SEM_SEG", SWITCH),
    ("train.channels_last", "MODEL.CHANNELS_LAST", SWITCH | NONE),
    ("train.freeze", "SOLVER.FREEZE", list_of(NAME)),
    ("train.losses", "SOLVER.LOSSES", list_of(NAME)),
    ("train.check_images", "DATALOADER.CHECK_IMAGES", one_of("headers", "decode")),
    ("train.data_faults", "DATALOADER.DATA_FAULTS", one_of("stop", "warn")),
    ("train.max_unreadable_images", "DATALOADER.MAX_UNREADABLE_IMAGES", whole(0)),
    ("train.checkpointer.best_metric", "SOLVER.BEST_CHECKPOINT_METRIC", TEXT),
    ("train.ema_decay", "SOLVER.EMA_DECAY", below_one()),
    ("train.micro_batches", "SOLVER.MICRO_BATCHES", whole(1)),
    ("train.wandb.{project,name}", "WANDB.{PROJECT,NAME}", TEXT),
    ("train.test_time.short_sides", "TEST.AUG.MIN_SIZES", list_of(whole(1))),
    ("train.test_time.max_size", None, one_or_list_of(whole(1))),
    (None, "TEST.AUG.MAX_SIZE", whole(1)),
    (None, "TEST.AUG.MAX_SIZES", list_of(whole(1))),
    ("train.test_time.flip", "TEST.AUG.FLIP", SWITCH),
    (None, "TEST.DETECTIONS_PER_IMAGE", _TOPK),
    (None, "TEST.PRECISE_BN.NUM_ITER", whole(1)),
    (None, "VIS_PERIOD", whole(0)),
    # Data
    (None, "DATASETS.TRAIN", list_of(NAME)),
    (None, "DATASETS.TEST", list_of(NAME)),
    (None, "DATASETS.IMPORTS", list_of(NAME)),
    ("dataloader.**.dataset.names", None, one_or_list_of(NAME)),
    ("dataloader.**.filter_empty", None, SWITCH),
    ("dataloader.train.total_batch_size", "SOLVER.IMS_PER_BATCH", whole(1)),
    (None, "SOLVER.REFERENCE_WORLD_SIZE", whole(0)),
    ("dataloader.test.batch_size", None, whole(1)),
    ("dataloader.**.num_workers", "DATALOADER.NUM_WORKERS", whole(0)),
    ("dataloader.**.aspect_ratio_grouping", None, SWITCH),
    (None, "DATALOADER.REPEAT_THRESHOLD", _NOT_NEGATIVE),
    ("dataloader.**.instance_mask_format", "INPUT.MASK_FORMAT", _MASK_FORMAT),
    ("dataloader.**.use_instance_mask", None, SWITCH),
    ("dataloader.**.recompute_boxes", None, SWITCH),
    ("dataloader.**.is_train", None, SWITCH),
    ("dataloader.**.image_format", "INPUT.FORMAT", _COLOURS),
    ("dataloader.**.short_edge_length", "INPUT.MIN_SIZE_{TRAIN,TEST}", _SIDES),
    ("dataloader.**.max_size", "INPUT.MAX_SIZE_{TRAIN,TEST}", whole(1)),
    ("dataloader.**.sample_style", "INPUT.MIN_SIZE_TRAIN_SAMPLING", one_of("choice", "range")),
    ("dataloader.**.probability", "INPUT.COPY_PASTE.PROBABILITY", PROBABILITY),
    ("dataloader.**.prob", None, PROBABILITY),
    ("dataloader.**.max_instances", "INPUT.COPY_PASTE.MAX_INSTANCES", whole(1)),
    (None, "INPUT.LARGE_SCALE_JITTER.IMAGE_SIZE", whole(1)),
    ("dataloader.**.min_scale", "INPUT.LARGE_SCALE_JITTER.MIN_SCALE", _POSITIVE),
    ("dataloader.**.max_scale", "INPUT.LARGE_SCALE_JITTER.MAX_SCALE", _POSITIVE),
    ("dataloader.**.target_height", None, whole(1)),
    ("dataloader.**.target_width", None, whole(1)),
    (None, "INPUT.RANDOM_FLIP", one_of("horizontal", "vertical", "none")),
    (
        None,
        "INPUT.CROP.TYPE",
        one_of("relative", "relative_range", "absolute", "absolute_range"),
    ),
    (None, "INPUT.CROP.SIZE", list_of(_POSITIVE, 2, 2)),
    # Optimizer and schedule
    ("optimizer.**.lr", "SOLVER.BASE_LR", _NOT_NEGATIVE),
    ("optimizer.**.base_lr", None, _NOT_NEGATIVE | NONE),
    (None, "SOLVER.BASE_LR_END", _NOT_NEGATIVE),
    ("optimizer.**.momentum", "SOLVER.MOMENTUM", below_one()),
    ("optimizer.**.betas", None, list_of(below_one(), 2, 2)),
    ("optimizer.**.eps", None, _NOT_NEGATIVE),
    ("optimizer.**.nesterov", "SOLVER.NESTEROV", SWITCH),
    ("optimizer.**.weight_decay", "SOLVER.WEIGHT_DECAY", _NOT_NEGATIVE | NONE),
    ("optimizer.**.weight_decay_norm", "SOLVER.WEIGHT_DECAY_NORM", _NOT_NEGATIVE | NONE),
    ("optimizer.**.weight_decay_bias", "SOLVER.WEIGHT_DECAY_BIAS", _NOT_NEGATIVE | NONE),
    ("optimizer.**.bias_lr_factor", "SOLVER.BIAS_LR_FACTOR", _NOT_NEGATIVE | NONE),
    ("lr_multiplier.**.warmup_length", None, PROBABILITY),
    ("lr_multiplier.**.warmup_factor", "SOLVER.WARMUP_FACTOR", PROBABILITY),
    ("lr_multiplier.**.warmup_method", "SOLVER.WARMUP_METHOD", one_of("linear", "constant")),
    (None, "SOLVER.WARMUP_ITERS", whole(0)),
    ("lr_multiplier.**.values", None, list_of(_NOT_NEGATIVE, 1)),
    ("lr_multiplier.**.milestones", "SOLVER.STEPS", ascending(whole(0))),
    ("lr_multiplier.**.num_updates", None, whole(1) | NONE),
    ("lr_multiplier.**.start_value", None, _NOT_NEGATIVE),
    ("lr_multiplier.**.end_value", None, _NOT_NEGATIVE),
    (None, "SOLVER.GAMMA", _NOT_NEGATIVE),
    (None, "SOLVER.NUM_DECAYS", whole(1)),
    (
        None,
        "SOLVER.LR_SCHEDULER_NAME",
        one_of("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    ),
    # Model
    ("model.pixel_mean", "MODEL.PIXEL_MEAN", list_of(number(), 1)),
    ("model.pixel_std", "MODEL.PIXEL_STD", list_of(_POSITIVE, 1)),
    ("model.input_format", None, _COLOURS | NONE),
    ("model.**.vis_period", None, whole(0)),
    ("model.**.freeze_at", "MODEL.BACKBONE.FREEZE_AT", whole(0, 5)),
    ("model.**.stages.depth", "MODEL.RESNETS.DEPTH", one_of(18, 34, 50, 101, 152)),
    ("model.**.out_channels", "MODEL.**.OUT_CHANNELS", whole(1)),
    ("model.**.norm", "MODEL.**.NORM", _NORM),
    ("model.**.{conv,out}_norm", "MODEL.TIMM.OUT_NORM", _NORM),
    ("model.**.drop_path_rate", None, below_one()),
    ("model.**.batch_size_per_image", "MODEL.**.BATCH_SIZE_PER_IMAGE", whole(1)),
    ("model.**.positive_fraction", "MODEL.**.POSITIVE_FRACTION", PROBABILITY),
    ("model.**.num_classes", "MODEL.{ROI_HEADS,SSD,RETINANET,SEM_SEG_HEAD}.NUM_CLASSES", whole(1)),
    (None, "MODEL.SEMANTIC_BRANCH.NUM_CLASSES", whole(0)),
    ("model.**.proposal_generator.*_nms_topk", None, list_of(whole(1), 2, 2)),
    (None, "MODEL.RPN.*_NMS_TOPK_T*", whole(1)),
    ("model.**.nms_thresh", "MODEL.RPN.NMS_THRESH", PROBABILITY),
    ("model.**.test_nms_thresh", "MODEL.**.NMS_THRESH_TEST", PROBABILITY),
    ("model.**.test_score_thresh", "MODEL.**.SCORE_THRESH_TEST", PROBABILITY),
    ("model.**.test_topk_per_image", None, _TOPK),
    ("model.**.min_box_size", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", _NOT_NEGATIVE),
    ("model.**.anchor_boundary_thresh", "MODEL.RPN.BOUNDARY_THRESH", number()),
    ("model.**.thresholds", "MODEL.**.IOU_THRESHOLDS", ascending(PROBABILITY)),
    (None, "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", list_of(PROBABILITY, 1)),
    ("model.**.labels", "MODEL.**.IOU_LABELS", list_of(one_of(-1, 0, 1), 1)),
    ("model.**.box2box_transform.weights", "MODEL.**.BBOX_REG_WEIGHTS", nested(_POSITIVE)),
    ("model.**.anchor_generator.sizes", "MODEL.ANCHOR_GENERATOR.SIZES", nested(_POSITIVE)),
    (
        "model.**.anchor_generator.aspect_ratios",
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        nested(_POSITIVE),
    ),
    ("model.**.anchor_generator.offset", "MODEL.ANCHOR_GENERATOR.OFFSET", below_one()),
    ("model.**.smooth_l1_beta", "MODEL.**.SMOOTH_L1_BETA", _NOT_NEGATIVE),
    ("model.**.loss_weight", "MODEL.**.LOSS_WEIGHT", _WEIGHT),
    (None, "MODEL.**.BBOX_REG_LOSS_WEIGHT", _WEIGHT),
    ("model.**.pooler_type", "MODEL.**.POOLER_TYPE", _POOLER_TYPE),
    ("model.**.*_pooler.output_size", "MODEL.**.POOLER_RESOLUTION", one_or_list_of(whole(1, 1024))),
    ("model.**.sampling_ratio", "MODEL.**.POOLER_SAMPLING_RATIO", whole(0, 1024)),
    ("model.**.fc_dims", None, list_of(whole(1))),
    ("model.**.conv_dims", None, list_of(whole(1) | one_of(-1))),  # -1: as the input
    (None, "MODEL.ROI_*_HEAD.{FC,CONV}_DIM", whole(1)),
    (None, "MODEL.ROI_*_HEAD.NUM_{FC,CONV}", whole(0)),
    ("model.**.conv_dim", "MODEL.SEMANTIC_BRANCH.CONV_DIM", whole(1)),
    ("model.**.num_convs", "MODEL.SEMANTIC_BRANCH.NUM_CONVS", whole(0)),
    ("model.**.ignore_value", "MODEL.**.IGNORE_VALUE", whole(0, 255)),
    # The switches of HTC and MNC; their constructors check what depends on other values.
    (
        "model.roi_heads.stage_loss_weights",
        "MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS",
        list_of(_NOT_NEGATIVE) | NONE,
    ),
    ("model.roi_heads.interleaved", None, SWITCH),
    ("model.roi_heads.resample_stages", None, SWITCH),
    ("model.roi_heads.mask_information_flow", None, SWITCH),
    ("model.roi_heads.scale_box_gradients", None, SWITCH),
    ("model.roi_heads.average_*", None, SWITCH),
    ("model.roi_heads.soft_nms_sigma", "MODEL.ROI_HTC_HEAD.SOFT_NMS_SIGMA", _POSITIVE),
    (
        "model.roi_heads.soft_nms_score_thresh",
        "MODEL.ROI_HTC_HEAD.SOFT_NMS_SCORE_THRESH",
        PROBABILITY,
    ),
    ("model.roi_heads.end_to_end", None, SWITCH),
    ("model.roi_heads.global_context", None, SWITCH),
    ("model.**.max_box_gradient", None, _POSITIVE | NONE),
    (None, "MODEL.ROI_MNC_HEAD.MAX_BOX_GRADIENT", _NOT_NEGATIVE),
    ("model.roi_heads.mask_loss_weight", "MODEL.ROI_MNC_HEAD.MASK_LOSS_WEIGHT", _NOT_NEGATIVE),
    ("model.roi_heads.sampling_ious", "MODEL.ROI_MNC_HEAD.SAMPLING_IOUS", list_of(PROBABILITY)),
    (
        "model.roi_heads.sampling_fractions",
        "MODEL.ROI_MNC_HEAD.SAMPLING_FRACTIONS",
        list_of(PROBABILITY),
    ),
    ("model.roi_heads.nms_iou", "MODEL.ROI_MNC_HEAD.NMS_IOU", PROBABILITY),
    ("model.roi_heads.merge_iou", "MODEL.ROI_MNC_HEAD.MERGE_IOU", PROBABILITY),
    ("model.roi_heads.mask_threshold", "MODEL.ROI_MNC_HEAD.MASK_THRESHOLD", above(0)),
    ("model.roi_heads.pathway_pool", "MODEL.ROI_MNC_HEAD.PATHWAY_POOL", whole(1)),
    (None, "MODEL.ROI_MNC_HEAD.WARP_MAX_POOL", whole(1, 16)),
    (None, "MODEL.ROI_MNC_HEAD.MASK_{FC_DIM,SIDE}", whole(1)),
]


def check_values(cfg: DictConfig | CfgNode) -> None:
    """Check the values of a config by `TABLE`.

    Args:
        cfg: a LazyConfig or a CfgNode. Where a value of a LazyConfig is computed by a call
            (`L(...)`), that value is not known and not checked.

    Raises:
        ConfigError: for a value that can't be meant; names the key as it stands in the config, the
            value, and what it may be.
    """
    is_yaml = isinstance(cfg, CfgNode)
    for key, value in _yaml_values("", cfg) if is_yaml else _lazy_values(cfg):
        rule = _rule_of(key, is_yaml)
        if rule is not None and not rule.holds(value):
            raise ConfigError(f"{key} is {value!r}, but has to be {rule.text}")


def check_training(run_config: RunConfig, num_processes: int) -> None:
    """Check what a training needs of a config, besides its data.

    Raises:
        ConfigError: see `check_values` and `check_test_datasets`; for training datasets that are
            not registered; if the processes can't share the images of a batch equally.
    """
    check_values(run_config.cfg)
    key, names = run_config.train_datasets
    check_names_are_given(run_config.cfg, names)
    if not names:
        raise ConfigError(f"{key} is empty: name a dataset to train on")
    for name in names:
        _check_is_registered(name, key)
    check_test_datasets(run_config)
    solver = run_config.trainer_config().SOLVER
    # Detectron2 scales the batch from this number of processes to that of the run.
    shares = solver.REFERENCE_WORLD_SIZE or num_processes
    parts = run_config.micro_batches
    if solver.IMS_PER_BATCH % (shares * parts):
        raise ConfigError(
            f"{run_config.KEYS['batch_size']} is {solver.IMS_PER_BATCH}, but has to be a multiple "
            f"of the {shares} processes "
            + ("of SOLVER.REFERENCE_WORLD_SIZE" if solver.REFERENCE_WORLD_SIZE else "that share it")
            + (f", times {parts} ({run_config.KEYS['micro_batches']})" if parts > 1 else "")
        )
    if run_config.ema_decay and run_config.trainer_config().TEST.PRECISE_BN.ENABLED:
        raise ConfigError(
            "TEST.PRECISE_BN.ENABLED measures statistics for the weights that are trained, but "
            "SOLVER.EMA_DECAY evaluates their averages: switch one of them off"
        )


def check_test_datasets(run_config: RunConfig) -> None:
    """Raise a ConfigError if a dataset to evaluate on is not registered."""
    check_names_are_given(run_config.cfg, run_config.test_dataset_names)
    for name in run_config.test_dataset_names:
        _check_is_registered(name, run_config.KEYS["test_datasets"])


def _check_is_registered(name: str, key: str) -> None:
    if name in DatasetCatalog.list():
        return
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
    hint = f" Is it {' or '.join(map(repr, near))}?" if near else ""
    raise ConfigError(
        f"{key} names the dataset {name!r}, which is not registered.{hint} Register your data "
        "(hybrid_cascade.data.register_coco_json) in the LazyConfig, or in a module that "
        "DATASETS.IMPORTS of a YAML config names."
    )


@cache
def _rule_of(key: str, is_yaml: bool) -> Rule | None:
    return next((rule for pattern, rule in _patterns(is_yaml) if pattern.fullmatch(key)), None)


@cache
def _patterns(is_yaml: bool) -> list[tuple[re.Pattern, Rule]]:
    return [(_compile(row[is_yaml]), row[2]) for row in TABLE if row[is_yaml] is not None]


def _compile(pattern: str) -> re.Pattern:
    """Return the regular expression of a key of `TABLE`."""
    replaced = {r"**.": r"(.+\.)?", "*": r"[^.]*", "{": "(", ",": "|", "}": ")", ".": r"\."}
    return re.compile(re.sub(r"\*\*\.|[*{},.]", lambda match: replaced[match[0]], pattern))


def _yaml_values(prefix: str, node: CfgNode) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _yaml_values(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _lazy_values(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    pairs = []
    for section in ("train", "dataloader", "optimizer", "lr_multiplier", "model"):
        if section in cfg:
            tree = OmegaConf.to_container(cfg[section], resolve=False)
            pairs += _tree_values(section, tree, is_known=section == "train")
    # An error should name the key of a value rather than one that refers to it.
    yield from (pair for pair in pairs if not _refers(pair[1]))
    for key, value in pairs:
        if _refers(value):
            found = _resolved(cfg, key, value)
            if not OmegaConf.is_config(found):  # a section's values are checked where they stand
                yield key, found


def _tree_values(key: str, value: Any, is_known: bool) -> Iterator[tuple[str, Any]]:
    """Yield keys and values below a key; `is_known` tells whether arguments mean what we think."""
    is_call = isinstance(value, dict) and "_target_" in value
    if is_known and not is_call and value != "???" and _rule_of(key, False) is not None:
        yield key, value
    if isinstance(value, dict):
        target = value.get("_target_")
        is_known = is_known if target is None else _is_ours(target)
        for name, member in value.items():
            if name != "_target_":
                yield from _tree_values(f"{key}.{name}", member, is_known)
    elif isinstance(value, list) and any(isinstance(member, dict) for member in value):
        for index, member in enumerate(value):
            yield from _tree_values(f"{key}.{index}", member, is_known)


def _refers(value: Any) -> bool:
    """Tell whether a value is an interpolation ("${train.max_iter}"), or a list with one."""
    members = value if isinstance(value, list) else [value]
    return any(isinstance(member, str) and "${" in member for member in members)


def _resolved(cfg: DictConfig, key: str, value: Any) -> Any:
    """Return what an interpolation stands for."""
    try:
        found = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_list(found) else found
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key} is {value!r}: {error}") from error


def _is_ours(target: Any) -> bool:
    if isinstance(target, str):
        try:
            target = locate(target)
        except ImportError as error:
            raise ConfigError(
                f"_target_ is {target!r}, which can't be imported: {error}"
            ) from error
    module = getattr(target, "__module__", None) or ""
    return module.partition(".")[0] in ("detectron2", "hybrid_cascade", "fvcore", "torch")
