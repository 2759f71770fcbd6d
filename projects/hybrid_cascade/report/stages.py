"""What a model finds after each of its stages in some images of a dataset."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.evaluation import inference_context
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from torch import nn

from ..visualization.stages import detect_after_stages, find_stages, stage_title


@dataclass
class ModelOfReport:
    """A model and its inputs.

    Attributes:
        model: a `GeneralizedRCNN`, or another model with its interface.
        mapper: turns a dataset dict into an input of the model.
        dataset: the dataset dict of each image, by the id of the image in the annotation file.
        metadata: of the dataset, with `thing_dataset_id_to_contiguous_id` if its ids of classes are
            not 0, 1, 2, ...; names and colours of the semantic labels.
    """

    model: nn.Module
    mapper: Callable[[dict], dict]
    dataset: dict[Any, dict]
    metadata: Metadata

    @property
    def predicts_sem_seg(self) -> bool:
        """Tell whether the model has a semantic prediction."""
        names = ("semantic_branch", "sem_seg_head")
        return any(getattr(self.model, name, None) is not None for name in names)


@dataclass
class StageResults:
    """What is found in some images.

    Attributes:
        titles: of the stages, in the order that they run.
        detections: for each stage COCO's results of all images, with ids as in the files.
        sem_segs: the semantic prediction, (H, W) labels, of those images for which it was wanted.
    """

    titles: list[str]
    detections: list[list[dict]]
    sem_segs: dict[Any, np.ndarray] = field(default_factory=dict)


def run_stages(
    source: ModelOfReport, sampled: Iterable[Any], shown: Iterable[Any]
) -> StageResults | None:
    """Detect in images with the model stopped after each stage.

    Args:
        source: the model and its inputs.
        sampled: ids of images in the annotation file, for the measures by stage.
        shown: ids of the images whose semantic prediction is wanted, too. A model without stages
            runs on these alone.

    Returns:
        None if the model has neither stages nor a semantic prediction.
    """
    stages, wanted = find_stages(source.model), list(shown)
    has_stages = stages != [None]
    if not has_stages and not source.predicts_sem_seg:
        return None
    others = [i for i in sampled if i not in set(wanted)] if has_stages else []
    category_ids = source.metadata.get("thing_dataset_id_to_contiguous_id") or {}
    category_of = {index: category_id for category_id, index in category_ids.items()}
    found = StageResults(
        [stage_title(source.model, stage) for stage in stages], [[] for _ in stages]
    )
    with inference_context(source.model), torch.no_grad():
        for image_id in [*wanted, *others]:
            batched_input = source.mapper(source.dataset[image_id])
            detections, sem_seg = detect_after_stages(source.model, batched_input, stages)
            for of_stage, instances in zip(found.detections, detections, strict=True):
                for result in instances_to_coco_json(instances.to("cpu"), image_id):
                    category = result["category_id"]
                    of_stage.append({**result, "category_id": category_of.get(category, category)})
            if sem_seg is not None and image_id in wanted:
                found.sem_segs[image_id] = sem_seg.cpu().numpy()
    return found
