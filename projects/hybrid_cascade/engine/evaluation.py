"""Run the evaluation that a config describes, and draw its results.

The measures themselves are Detectron2's and, where it has none, those of the package
`hybrid_cascade.evaluation`.
"""

import json
import logging
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    CityscapesSemSegEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    SemSegEvaluator,
    inference_context,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.utils import comm
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from ..data.checks import check_same_classes
from ..evaluation import LabelMapEvaluator
from ..evaluation.label_maps import check_number_of_labels, obstacle_to_miou
from ..evaluation.precision_recall import load_precision_recall
from ..visualization import draw_cascade_panel, plot_precision_recall
from ..visualization.precision_recall import draw_precision_recall
from .config_checks import check_proposal_files, check_test_datasets
from .data_checks import check_annotation_files, check_test_data
from .inference_model import inference_autocast, prepare_inference
from .run_config import RunConfig, as_run_config
from .run_report import write_run_report

logger = logging.getLogger(__name__)

PANOPTICAPI = "https://github.com/cocodataset/panopticapi.git"


def evaluate(
    cfg: DictConfig | CfgNode,
    model: nn.Module,
    *,
    check_data: bool = True,
    trained_with: Mapping[str, Any] | None = None,
) -> dict:
    """Evaluate on the test datasets of a config; write results.json into its output folder.

    Args:
        cfg: the config.
        model: a model of this config, or several that detect together.
        check_data: look for faults in the datasets first.
        trained_with: what `load_weights` returned; its classes are compared with the datasets'.

    Returns:
        The metrics, {"bbox": {"AP": …}, "segm": …}, on the main process; {} on others. If a CfgNode
        names several datasets: one such dict under each name.

    Raises:
        ValueError: see `check_evaluation`.
        DatasetError: for faults in the datasets.
    """
    run_config = as_run_config(cfg)
    if check_data:
        check_proposal_files(run_config)
        check_annotation_files(run_config, (), model)
        check_test_data(run_config, model)
        check_same_classes(
            trained_with or {},
            "the training of the checkpoint",
            run_config.test_dataset_names,
            stop=run_config.stops_at_data_faults,
        )
    check_evaluation(cfg, model)
    results = {}
    model = prepare_inference(cfg, model)

    @inference_autocast(cfg)
    def detect(batched_inputs: list[dict]) -> list[dict]:
        return model(batched_inputs)

    for name, loader in run_config.build_test_loaders():
        evaluators = _build_evaluators(run_config, name)
        with inference_context(model):
            results[name] = inference_on_dataset(detect, loader, evaluators)
        if comm.is_main_process():
            logger.info("Metrics on %s:", name)
            print_csv_format(results[name])
    if len(results) == 1:
        [results] = results.values()
    if comm.is_main_process():
        path = os.path.join(run_config.output_dir, "results.json")
        with open(path, "w") as f:
            json.dump(_without_nan(results), f, indent=2)
        logger.info("Metrics saved to %s", path)
    return results


def check_evaluation(cfg: DictConfig | CfgNode, model: nn.Module) -> None:
    """Check that the test datasets of a config have what the evaluation of a model needs.

    Raises:
        ValueError: if a dataset is not registered; if a YAML config has one whose `evaluator_type`
            is unknown, or needs a package that is not installed; if the semantic branch is to be
            measured, and a dataset has no label maps or other labels, or a LazyConfig joins several
            datasets.
    """
    run_config = as_run_config(cfg)
    check_test_datasets(run_config)
    run_config.check_evaluators()
    if not run_config.evaluates_sem_seg:
        return
    branch = getattr(model, "semantic_branch", None)
    for name in run_config.test_dataset_names:
        obstacle = obstacle_to_miou(name)
        if obstacle:
            raise ValueError(obstacle)
        if branch is not None:
            check_number_of_labels(name, branch.num_classes)


def _build_evaluators(run_config: RunConfig, dataset_name: str) -> list[DatasetEvaluator]:
    folder = _inference_dir(run_config, dataset_name)
    evaluators = run_config.build_evaluators(dataset_name, folder)
    if run_config.evaluates_sem_seg and not any(
        isinstance(evaluator, SemSegEvaluator | CityscapesSemSegEvaluator)
        for evaluator in evaluators
    ):
        evaluators.append(LabelMapEvaluator(dataset_name, output_dir=folder))
    if run_config.outputs_panoptic_seg and not any(
        isinstance(evaluator, COCOPanopticEvaluator) for evaluator in evaluators
    ):
        obstacle = _obstacle_to_panoptic_evaluation(dataset_name)
        if obstacle is None:
            return [*evaluators, COCOPanopticEvaluator(dataset_name, folder)]
        logger.warning("Panoptic quality on %s is not measured: %s", dataset_name, obstacle)
    return evaluators


def _inference_dir(run_config: RunConfig, dataset_name: str) -> str:
    """Return a folder for the detections on a dataset, one for each if there are several."""
    folder = os.path.join(run_config.output_dir, "inference")
    is_only_one = len(run_config.test_dataset_names) == 1
    return folder if is_only_one else os.path.join(folder, dataset_name)


def _obstacle_to_panoptic_evaluation(dataset_name: str) -> str | None:
    """Return why the panoptic quality can't be measured; None if it can."""
    metadata = MetadataCatalog.get(dataset_name)
    panoptic_json = metadata.get("panoptic_json")
    if panoptic_json is None:
        return "the dataset has no panoptic ground truth (panoptic_json)"
    if not os.path.isfile(panoptic_json):
        return f"'{panoptic_json}' does not exist"
    if metadata.get("stuff_dataset_id_to_contiguous_id") is None:
        return "the dataset has no stuff_dataset_id_to_contiguous_id"
    if find_spec("panopticapi") is None:
        return "panopticapi is not installed: pip install git+" + PANOPTICAPI
    return None


def _without_nan(metrics):
    """Replace NaN, which JSON lacks, by None: COCO's metrics without ground truth are NaN."""
    if isinstance(metrics, dict):
        return {k: _without_nan(v) for k, v in metrics.items()}
    return None if isinstance(metrics, float) and math.isnan(metrics) else metrics


def draw_results(cfg: DictConfig | CfgNode, model: nn.Module) -> None:
    """Draw precision/recall curves of the last evaluation, panels of some test images, the report.

    Writes precision_recall.png, panels/*.png and report.html into the output folder (prefixed with
    the name of the dataset if there are several).
    """
    run_config = as_run_config(cfg)
    names = run_config.test_dataset_names
    model = prepare_inference(cfg, model)
    for name in names:
        prefix = "" if len(names) == 1 else f"{name}_"
        _draw_precision_recall(run_config, name, prefix)
        with inference_autocast(cfg):
            _draw_panels(run_config, model, name, prefix)
            if run_config.writes_report:
                _write_report(run_config, model, name, prefix)
    logger.info("Curves and panels saved to %s", run_config.output_dir)


def _draw_precision_recall(run_config: RunConfig, dataset_name: str, prefix: str) -> None:
    folder = _inference_dir(run_config, dataset_name)
    detections = os.path.join(folder, "coco_instances_results.json")
    ground_truth = MetadataCatalog.get(dataset_name).get("json_file")
    if os.path.isfile(detections) and ground_truth:
        path = os.path.join(run_config.output_dir, f"{prefix}precision_recall.png")
        evaluated = load_precision_recall(folder)
        if evaluated:
            draw_precision_recall(evaluated, path)
        else:  # results of another evaluator, such as Detectron2's
            plot_precision_recall(ground_truth, detections, path)


def _write_report(run_config: RunConfig, model: nn.Module, dataset_name: str, prefix: str) -> None:
    folder = run_config.output_dir
    results = os.path.join(_inference_dir(run_config, dataset_name), "coco_instances_results.json")
    if os.path.isfile(results) and MetadataCatalog.get(dataset_name).get("json_file"):
        path = os.path.join(folder, f"{prefix}report.html")
        metrics_json = os.path.join(folder, "metrics.json")
        try:
            write_run_report(
                run_config, model, dataset_name, results, path, metrics_json=metrics_json
            )
        except (ImportError, ValueError) as error:  # of data whose faults only warn, for example
            logger.error("%s is not written: %s", path, error)


def _draw_panels(run_config: RunConfig, model: nn.Module, dataset_name: str, prefix: str) -> None:
    folder = os.path.join(run_config.output_dir, "panels")
    os.makedirs(folder, exist_ok=True)
    mapper = run_config.build_test_mapper()
    metadata = MetadataCatalog.get(dataset_name)
    dataset = DatasetCatalog.get(dataset_name)
    number = run_config.num_panels
    with inference_context(model), torch.no_grad():
        for dataset_dict in dataset[:: max(1, len(dataset) // max(1, number))][:number]:
            panel = draw_cascade_panel(
                model, mapper(dataset_dict), metadata, ground_truth=dataset_dict
            )
            stem = os.path.splitext(os.path.basename(dataset_dict["file_name"]))[0]
            Image.fromarray(panel).save(os.path.join(folder, f"{prefix}{stem}.png"))
