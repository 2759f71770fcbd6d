"""Build the model of a config, evaluate it, and draw what it does; for both kinds of config."""

import json
import logging
import math
import os
from importlib.util import find_spec

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import build_augmentation
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.modeling import build_model as build_cfg_node_model
from detectron2.utils import comm
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from ..evaluation import VOCRegionEvaluator
from ..modeling import check_semantic_features
from ..visualization import draw_cascade_panel, plot_precision_recall

logger = logging.getLogger(__name__)

PANOPTICAPI = "https://github.com/cocodataset/panopticapi.git"


def build_model(cfg: DictConfig | CfgNode) -> nn.Module:
    """The model of a config with its initial weights, in eval mode, on the device of the config.

    Its convolutions are channels-last on a CPU, where that is faster, unless the config says
    otherwise (train.channels_last, MODEL.CHANNELS_LAST). Results differ in rounding only.
    """
    if isinstance(cfg, CfgNode):
        model = build_cfg_node_model(cfg)
    else:
        model = instantiate(cfg.model).to(cfg.train.device)
    if hasattr(model, "roi_heads"):
        check_semantic_features(model)
    channels_last = _channels_last(cfg)
    if channels_last is None:
        channels_last = next(model.parameters()).device.type == "cpu"
    if channels_last:
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model.eval()


def _channels_last(cfg: DictConfig | CfgNode) -> bool | None:
    if isinstance(cfg, CfgNode):
        return cfg.MODEL.CHANNELS_LAST
    return cfg.train.channels_last


def test_dataset_names(cfg: DictConfig | CfgNode) -> list[str]:
    """The registered names of the data sets that a config evaluates on."""
    if isinstance(cfg, CfgNode):
        return list(cfg.DATASETS.TEST)
    names = cfg.dataloader.test.dataset.names
    return [names] if isinstance(names, str) else list(names)


def test_augmentations(cfg: DictConfig | CfgNode) -> tuple[list[T.Augmentation], str]:
    """How a config resizes images at test time, and the "BGR" or "RGB" that its model takes."""
    if isinstance(cfg, CfgNode):
        return build_augmentation(cfg, is_train=False), cfg.INPUT.FORMAT
    mapper = cfg.dataloader.test.mapper
    return list(instantiate(mapper.augmentations)), mapper.image_format


def output_dir(cfg: DictConfig | CfgNode) -> str:
    """The folder that a run writes to."""
    return cfg.OUTPUT_DIR if isinstance(cfg, CfgNode) else cfg.train.output_dir


class CfgNodeEvaluation(DefaultTrainer):
    """`DefaultTrainer.test` with COCO's metrics, VOC's where the data set asks for them, and PQ."""

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        evaluators = [COCOEvaluator(dataset_name, output_dir=_inference_dir(cfg, dataset_name))]
        if MetadataCatalog.get(dataset_name).get("evaluator_type") == "voc_region":
            evaluators.append(VOCRegionEvaluator(dataset_name))
        return [*evaluators, *_panoptic_evaluators(cfg, dataset_name)]


def _inference_dir(cfg: DictConfig | CfgNode, dataset_name: str) -> str:
    """One folder for each test set, so that the detections on one do not overwrite another's."""
    names = test_dataset_names(cfg)
    folder = os.path.join(output_dir(cfg), "inference")
    return folder if len(names) == 1 else os.path.join(folder, dataset_name)


def _panoptic_evaluators(cfg: DictConfig | CfgNode, dataset_name: str) -> list[DatasetEvaluator]:
    """One evaluator if the model makes panoptic output that can be measured; else none."""
    if isinstance(cfg, CfgNode):
        is_wanted = cfg.MODEL.META_ARCHITECTURE == "SemanticRCNN"
        is_wanted = is_wanted and cfg.MODEL.SEMANTIC_BRANCH.OUTPUT_PANOPTIC_SEG
    else:
        is_wanted = cfg.model.get("output_panoptic_seg", False)
    if not is_wanted:
        return []
    metadata = MetadataCatalog.get(dataset_name)
    panoptic_json = metadata.get("panoptic_json")
    if panoptic_json is None:
        obstacle = "the data set has no panoptic ground truth (panoptic_json)"
    elif not os.path.isfile(panoptic_json):
        obstacle = f"'{panoptic_json}' does not exist"
    elif metadata.get("stuff_dataset_id_to_contiguous_id") is None:
        obstacle = "the data set has no stuff_dataset_id_to_contiguous_id"
    elif find_spec("panopticapi") is None:
        obstacle = "panopticapi is not installed: pip install git+" + PANOPTICAPI
    else:
        return [COCOPanopticEvaluator(dataset_name, _inference_dir(cfg, dataset_name))]
    logger.warning("Panoptic quality on %s is not measured: %s", dataset_name, obstacle)
    return []


def _build_evaluator(cfg: DictConfig, evaluator: DictConfig) -> DatasetEvaluator:
    args = {k: instantiate(v) for k, v in evaluator.items() if k != "_target_"}
    if evaluator._target_ is COCOEvaluator:
        args.setdefault("output_dir", _inference_dir(cfg, test_dataset_names(cfg)[0]))
    return evaluator._target_(**args)


def evaluate(cfg: DictConfig | CfgNode, model: nn.Module) -> dict:
    """Evaluate on the test sets of a config; write results.json.

    Returns:
        The metrics, {"bbox": {"AP": …}, "segm": …} (one such dict for each data set if there are
        several), on the main process; {} on others.
    """
    if isinstance(cfg, CfgNode):
        results = CfgNodeEvaluation.test(cfg, model)
    else:
        evaluators = cfg.dataloader.evaluator  # one, or a list
        if isinstance(evaluators, DictConfig):
            evaluators = [evaluators]
        loader = instantiate(cfg.dataloader.test)
        evaluators = [_build_evaluator(cfg, evaluator) for evaluator in evaluators]
        if not any(isinstance(e, COCOPanopticEvaluator) for e in evaluators):
            evaluators += _panoptic_evaluators(cfg, test_dataset_names(cfg)[0])
        results = inference_on_dataset(model, loader, evaluators)
        if comm.is_main_process():
            print_csv_format(results)
    if comm.is_main_process():
        path = os.path.join(output_dir(cfg), "results.json")
        with open(path, "w") as f:
            json.dump(_without_nan(results), f, indent=2)
        logger.info("Metrics saved to %s", path)
    return results or {}


def _without_nan(metrics):
    """JSON has no NaN, which COCO's metrics are where a size or class has no ground truth."""
    if isinstance(metrics, dict):
        return {k: _without_nan(v) for k, v in metrics.items()}
    return None if isinstance(metrics, float) and math.isnan(metrics) else metrics


def draw_results(cfg: DictConfig | CfgNode, model: nn.Module) -> None:
    """Draw precision/recall curves of the last evaluation and panels of some test images.

    Writes precision_recall.png and panels/*.png into the output folder (prefixed with the name of
    the data set if there are several).
    """
    num_panels = cfg.TEST.NUM_PANELS if isinstance(cfg, CfgNode) else cfg.train.num_panels
    names = test_dataset_names(cfg)
    if isinstance(cfg, CfgNode):
        mapper = DatasetMapper(cfg, is_train=False)
    else:
        mapper = instantiate(cfg.dataloader.test.mapper)
    for name in names:
        prefix = "" if len(names) == 1 else f"{name}_"
        metadata = MetadataCatalog.get(name)
        detections = os.path.join(_inference_dir(cfg, name), "coco_instances_results.json")
        if os.path.isfile(detections) and metadata.get("json_file"):
            plot_precision_recall(
                metadata.json_file,
                detections,
                os.path.join(output_dir(cfg), f"{prefix}precision_recall.png"),
            )
        dataset = DatasetCatalog.get(name)
        folder = os.path.join(output_dir(cfg), "panels")
        os.makedirs(folder, exist_ok=True)
        for ground_truth in dataset[:: max(1, len(dataset) // max(1, num_panels))][:num_panels]:
            panel = draw_cascade_panel(
                model, mapper(ground_truth), metadata, ground_truth=ground_truth
            )
            stem = os.path.splitext(os.path.basename(ground_truth["file_name"]))[0]
            Image.fromarray(panel).save(os.path.join(folder, f"{prefix}{stem}.png"))
    logger.info("Pictures saved to %s", output_dir(cfg))
