"""Toy scenes that the tests of this folder share."""

import os

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from hybrid_cascade.data import draw_toy_scenes, register_toy_scenes


class Drawn:
    """A few toy scenes on disk, registered as small_toys_train and small_toys_val."""

    def __init__(self, root):
        numbers = {"num_train": 12, "num_val": 3}
        self.root = root
        register_toy_scenes(root, "small_toys", **numbers)
        draw_toy_scenes(root, **numbers)

    def annotations(self, split):
        return COCO(os.path.join(self.root, "annotations", f"instances_{split}.json"))

    def label_map(self, split, image):
        path = os.path.join(self.root, f"stuff_{split}", image["file_name"])
        return np.asarray(Image.open(path))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    return Drawn(str(tmp_path_factory.mktemp("toy") / "scenes"))
