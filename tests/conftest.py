"""Small models and inputs that the tests share."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from .small_configs import load_toy

# Files whose tests take longest. They start first, so that no process is left with one at the end.
SLOWEST_FILES = ("test_overfit", "test_launch", "test_trainer", "test_mixed_labels", "test_configs")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in SLOWEST_FILES)  # keeps the order otherwise


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def storage():
    """An event storage, without which Detectron2's losses fail."""
    with EventStorage() as storage:
        yield storage


@pytest.fixture
def tiny_config():
    """The loader of the small models of configs/quick_start, by name."""
    return load_toy


def ground_truth(height, width, boxes, classes, bitmasks=False):
    """Return instances whose masks are their boxes without the lower right quarter."""
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
