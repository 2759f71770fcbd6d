"""Write the page that shows what a run's model finds: report.html."""

import logging
import os
from collections.abc import Mapping

from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from ..report import ModelOfReport, Results, build_report, write_report
from .run_config import RunConfig

logger = logging.getLogger(__name__)


def write_run_report(
    run_config: RunConfig,
    model: nn.Module,
    dataset_name: str,
    results_json: str | os.PathLike,
    path: str | os.PathLike,
    *,
    metrics_json: str | os.PathLike | None = None,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Write the report on the detections in a test dataset.

    The measures are of all results. A model with stages runs again, stage by stage, on the images
    that the page shows and on those over which AP by stage is measured. The config bounds both.

    Args:
        run_config: of the model.
        model: which made the results.
        dataset_name: its annotation file is the `json_file` of its metadata.
        results_json: the coco_instances_results.json of `COCOEvaluator`.
        path: the page to write.
        metrics_json: of the training, whose curves the page shows; need not exist.
        sources: further lines for the head of the page.

    Raises:
        ValueError: if the results do not fit the dataset.
    """
    metadata = MetadataCatalog.get(dataset_name)
    dataset = {image["image_id"]: image for image in DatasetCatalog.get(dataset_name)}
    contents = build_report(
        Results.load(metadata.json_file, results_json),
        title=dataset_name,
        image_files={image_id: image["file_name"] for image_id, image in dataset.items()},
        num_images=run_config.report_images,
        model=ModelOfReport(model, run_config.build_test_mapper(), dataset, metadata),
        num_stage_images=run_config.report_stage_images,
        config=run_config.text,
        metrics_json=metrics_json,
        sources=sources,
    )
    write_report(path, contents)
    logger.info("Report saved to %s", path)
