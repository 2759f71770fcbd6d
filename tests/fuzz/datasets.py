"""Datasets with one fault each: of their annotation file, or of their images and label maps.

A case writes a training and a validation set of three small images, puts the fault into one, and
starts a training or an evaluation of a model that finds everything. What is used afterwards: a
pass through the training data, which have to be complete, and COCO's evaluation with its curves, in
which the model has to reach an AP of 100.
"""

import json
import random as random_module
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from detectron2.structures.masks import polygons_to_bitmask
from PIL import Image
from torch import nn

from hybrid_cascade.data import register_coco_json
from hybrid_cascade.engine import Trainer, draw_results, evaluate, load_config
from hybrid_cascade.engine.data_checks import check_annotation_files, check_test_data
from hybrid_cascade.engine.run_config import RunConfig, as_run_config

from .case import Case
from .datasets_annotations import ANNOTATION_FAULTS
from .datasets_faults import HEIGHT, WIDTH
from .datasets_files import FILE_FAULTS
from .datasets_records import RECORD_FAULTS

ROOT = Path(__file__).parents[2]
LAZY = str(ROOT / "configs" / "quick_start" / "htc_toy.py")
YAML = str(ROOT / "configs" / "yaml" / "htc" / "htc_r50_fpn_1x.yaml")
CLASSES = ("fern", "moss", "tree")
LABELS = (*CLASSES, "soil")
OPTIONS = {
    LAZY: """train.device=cpu train.num_panels=0 train.report.enabled=False
        dataloader.train.total_batch_size=1 dataloader.train.dataset.names=train
        dataloader.test.dataset.names=val""",
    YAML: """MODEL.DEVICE cpu TEST.NUM_PANELS 0 TEST.REPORT.ENABLED False
        SOLVER.IMS_PER_BATCH 1 DATALOADER.NUM_WORKERS 0
        DATASETS.TRAIN ('train',) DATASETS.TEST ('val',)
        INPUT.MIN_SIZE_TRAIN (48,) INPUT.MIN_SIZE_TEST 48""",
}
# Loaded once, before the processes of the cases start.
CONFIGS = [as_run_config(load_config(path, text.split())) for path, text in OPTIONS.items()]
OBJECTS = 3  # of an image
# What is done with the dataset that has the fault.
USES = ("train", "val", "eval_only")


@dataclass
class Job:
    """What a case checks and uses: a config, and a trainer if it trains."""

    cfg: object
    model: nn.Module
    trainer: Trainer | None


def make_case(random: random_module.Random) -> Case:
    """Return a case."""
    fault = random.choice(ANNOTATION_FAULTS + RECORD_FAULTS + FILE_FAULTS)
    use = random.choice([x for x in USES if x in fault.uses])
    config = random.choice(CONFIGS)
    if fault.decode:
        config = config.replaced(check_images="decode")
    seed = random.random()
    names = None if fault.fine_for(use) else fault.names
    return Case(
        name=f"datasets: {fault.name} ({use})",
        check=partial(prepare, fault.apply, use, config, seed),
        names=names,
        use=use_data,
        why=fault.why if names is None else "",
    )


def prepare(apply: Callable, use: str, config: RunConfig, seed: float, folder: Path) -> Job:
    """Write a training and a validation set, one with a fault, and start to use them."""
    random = random_module.Random(seed)
    contents = {split: make_content(random) for split in ("train", "val")}
    found = deepcopy(contents["val"])
    spoilt = "train" if use == "train" else "val"
    for name, content in contents.items():
        change = partial(apply, random) if name == spoilt else lambda content, folder: None
        register(name, content, folder, change)
    cfg = config.replaced(output_dir=f"{folder}/output").cfg
    model = Oracle(found)
    if use != "eval_only":
        return Job(cfg, model, OracleTrainer(cfg, model))
    check_annotation_files(as_run_config(cfg), (), model)
    check_test_data(as_run_config(cfg), model)
    return Job(cfg, model, None)


def use_data(job: Job) -> None:
    if job.trainer is not None:
        for _ in range(3):
            for image in next(job.trainer._trainer._data_loader_iter):
                check_training_image(image)
    results = evaluate(job.cfg, job.model)
    assert results["bbox"]["AP"] > 99, results
    draw_results(job.cfg, job.model)


def check_training_image(image: dict) -> None:
    """Check that an image has all of its objects, and the labels of its label map."""
    instances = image["instances"]
    assert len(instances) == OBJECTS and instances.gt_boxes.nonempty().all(), instances
    assert instances.gt_masks.nonempty().all(), instances
    path = Path(image["file_name"])
    written = np.asarray(Image.open(path.parents[1] / "maps" / path.name))
    assert np.array_equal(np.unique(written), np.unique(image["sem_seg"])), written


class OracleTrainer(Trainer):
    """A trainer of a model that needs no training."""

    def __init__(self, cfg, model):
        self.oracle = model
        super().__init__(cfg)

    def build_model(self, cfg):
        return self.oracle


class Oracle(nn.Module):
    """Finds every object of a dataset exactly."""

    def __init__(self, content: dict):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.roi_heads = SimpleNamespace(num_classes=len(CLASSES), mask_on=True)
        self.semantic_targets = SimpleNamespace(source="auto")
        self.semantic_branch = SimpleNamespace(num_classes=len(LABELS), ignore_value=255)
        self.objects = {
            image["file_name"]: [
                x
                for x in content["annotations"]
                if x["image_id"] == image["id"] and not x["iscrowd"]
            ]
            for image in content["images"]
        }

    def forward(self, batched_inputs):
        return [{"instances": self.find(x)} for x in batched_inputs]

    def find(self, image: dict) -> Instances:
        objects = self.objects.get(Path(image["file_name"]).name, [])
        masks = [polygons_to_bitmask(x["segmentation"], HEIGHT, WIDTH) for x in objects]
        boxes = torch.tensor([x["bbox"] for x in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return Instances(
            (HEIGHT, WIDTH),
            pred_boxes=Boxes(boxes),
            pred_masks=torch.tensor(np.array(masks).reshape(-1, HEIGHT, WIDTH), dtype=torch.bool),
            pred_classes=torch.tensor([x["category_id"] - 1 for x in objects], dtype=torch.long),
            scores=torch.ones(len(objects)),
        )


def make_content(random: random_module.Random) -> dict:
    """Return annotations of three images with `OBJECTS` each."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (3, 5, 8)
    ]
    annotations = []
    for image in images:
        for column in range(OBJECTS):  # side by side, so that none is hidden
            width, height = random.randint(10, 16), random.randint(10, 30)
            x, y = 21 * column + random.randint(1, 4), random.randint(1, HEIGHT - height - 1)
            polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": random.randint(1, len(CLASSES)),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def register(
    name: str, content: dict, folder: Path, change: Callable = lambda content, folder: None
) -> None:
    """Write a dataset, change its content and its files, and register it."""
    path = folder / f"{name}.json"
    _write_files(folder / name, content)
    replaced = change(content, folder / name)
    labels = content.pop("stuff_classes", LABELS)
    path.write_bytes(replaced if isinstance(replaced, bytes) else json.dumps(content).encode())
    folders = (str(folder / name / "images"), str(folder / name / "maps"))
    register_coco_json(name, str(path), *folders, stuff_classes=labels)


def _write_files(folder: Path, content: dict) -> None:
    for name in ("images", "maps"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image in content["images"]:
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image["file_name"])
        labels = rng.integers(0, len(LABELS), (HEIGHT, WIDTH), np.uint8)
        Image.fromarray(labels).save(folder / "maps" / image["file_name"])
