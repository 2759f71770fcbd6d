"""Images and what a format has to become."""

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from hybrid_cascade.data.conversion import to_coco


@pytest.fixture
def make_images(tmp_path):
    """Write images of 40 x 30 pixels below images/ and return that folder."""

    def make_images(*names, size=(40, 30)):
        root = tmp_path / "images"
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(path)
        return root

    return make_images


def masks_of(images, class_names=None):
    """Return the (H, W) masks of all objects with masks, decoded by COCO's own tool."""
    coco = COCO()
    coco.dataset = to_coco(images, class_names)
    coco.createIndex()
    return [coco.annToMask(x) for x in coco.dataset["annotations"] if "segmentation" in x]


def rectangle(x1, y1, x2, y2, size=(30, 40)):
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask
