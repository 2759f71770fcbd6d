"""Registered datasets of small masks, and detections on them."""

import json

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from hybrid_cascade.data import register_coco_json
from hybrid_cascade.evaluation import VOCRegionEvaluator

SIZE = (24, 32)

CLASSES = ["cat", "dog", "owl"]


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def tight_box(mask):
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


class Scenes:
    """A registered dataset of masks, and detections on it.

    Attributes:
        truth: for each image, instances (class, mask, is crowd).
        found: for each image, detections (class, mask, score, box).
    """

    def __init__(self, folder, truth):
        self.truth = truth
        self.found = [[] for _ in truth]
        # The dataset sorts images by id when it is loaded, so ids are not in the order of images.
        self.ids = [100 + (7 * index) % len(truth) for index in range(len(truth))]
        annotations = []
        for image_id, instances in zip(self.ids, truth, strict=True):
            for label, mask, is_crowd in instances:
                region = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
                region["counts"] = region["counts"].decode()
                x1, y1, x2, y2 = map(int, tight_box(mask))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": label + 1,
                        "segmentation": region,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": int(mask.sum()),
                        "iscrowd": int(is_crowd),
                    }
                )
        content = {
            "images": [
                {"id": i, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
                for i in self.ids
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
            "annotations": annotations,
        }
        (folder / "truth.json").write_text(json.dumps(content))
        Image.new("RGB", SIZE[::-1]).save(folder / "a.png")
        self.name = f"scenes {len(DatasetCatalog.list())} of {folder}"
        register_coco_json(self.name, str(folder / "truth.json"), str(folder))

    def find(self, image, label, mask, score, box=None):
        box = tight_box(mask) if box is None else box
        self.found[image].append((label, mask, score, [float(x) for x in box]))

    def outputs(self, image):
        found = self.found[image]
        masks = np.stack([mask for _, mask, _, _ in found]) if found else np.zeros((0, *SIZE), bool)
        instances = Instances(SIZE)
        instances.pred_boxes = Boxes(torch.tensor([box for *_, box in found]).reshape(-1, 4))
        instances.scores = torch.tensor([score for _, _, score, _ in found])
        instances.pred_classes = torch.tensor([label for label, *_ in found], dtype=torch.long)
        instances.pred_masks = torch.from_numpy(masks)
        return [{"image_id": self.ids[image]}], [{"instances": instances}]

    def evaluate(self, images=None, **options):
        evaluator = VOCRegionEvaluator(self.name, **options)
        evaluator.reset()
        for image in range(len(self.truth)) if images is None else images:
            evaluator.process(*self.outputs(image))
        return evaluator.evaluate()


def random_scenes(make, seed, crowds=False):
    """Draw instances and detections near them: duplicates, ties, wrong classes, false ones."""
    random = np.random.default_rng(seed)

    def blob():
        x, y = random.integers(0, 22), random.integers(0, 14)
        mask = rectangle(x, y, x + random.integers(4, 11), y + random.integers(4, 11))
        return mask & (random.random(SIZE) < 0.95)

    def near(mask):
        shifted = np.roll(mask, random.integers(0, 2, size=2), axis=(0, 1))
        return shifted ^ (random.random(SIZE) < 0.01)

    truth = [
        [
            (int(random.integers(0, 2)), blob(), crowds and random.random() < 0.3)
            for _ in range(random.integers(0, 5))
        ]
        for _ in range(8)
    ]
    scenes = make(truth)
    for image, instances in enumerate(truth):
        for label, mask, _ in instances:
            for _ in range(random.integers(0, 4)):
                label = label if random.random() < 0.8 else int(random.integers(0, 3))
                found = near(mask)
                box = np.array(tight_box(mask)) + random.integers(-2, 3, size=4)
                scenes.find(image, label, found, float(np.float32(random.integers(1, 6) / 5)), box)
        if random.random() < 0.5:
            scenes.find(image, int(random.integers(0, 3)), blob(), 0.5)
    return scenes
