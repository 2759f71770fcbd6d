"""Small models and inputs that the tests share."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def storage():
    """Where Detectron2's losses log to; they fail without one."""
    with EventStorage() as storage:
        yield storage


@pytest.fixture
def tiny_config():
    """The `model` section of a quick-start config with a backbone of a few channels."""

    def load(name="htc_toy"):
        model = LazyConfig.load(str(CONFIGS / "quick_start" / f"{name}.py")).model
        model.backbone.bottom_up.stem.norm = "FrozenBN"
        model.backbone.bottom_up.stages.norm = "FrozenBN"
        model.roi_heads.batch_size_per_image = 16
        return model

    return load


def ground_truth(height, width, boxes, classes, bitmasks=False):
    """Instances whose masks are their boxes without the right lower quarter."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    polygons = []
    for x1, y1, x2, y2 in boxes.tolist():
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        polygons.append([[x1, y1, x2, y1, x2, y, x, y, x, y2, x1, y2]])
    masks = PolygonMasks(polygons)
    if bitmasks:
        masks = BitMasks.from_polygon_masks(masks, height, width)
    return Instances(
        (height, width),
        gt_boxes=Boxes(boxes),
        gt_classes=torch.tensor(classes, dtype=torch.long),
        gt_masks=masks,
    )


@pytest.fixture
def make_ground_truth():
    return ground_truth


@pytest.fixture
def inputs():
    """Two images of odd and different sizes, with two and one instances."""
    return [
        {
            "image": torch.randint(0, 256, (3, 97, 131)).float(),
            "height": 97,
            "width": 131,
            "instances": ground_truth(97, 131, [[10, 10, 60, 70], [50, 30, 120, 90]], [1, 4]),
        },
        {
            "image": torch.randint(0, 256, (3, 128, 96)).float(),
            "height": 64,
            "width": 48,
            "instances": ground_truth(128, 96, [[20, 40, 80, 100]], [0]),
        },
    ]
