"""A folder in the layout of SBD, with five small images."""

import numpy as np
import pytest
from PIL import Image

savemat = pytest.importorskip("scipy.io", reason="pip install scipy").savemat
csc_matrix = pytest.importorskip("scipy.sparse").csc_matrix

SIZE = (30, 40)
TRAIN = ["2008_000008", "2009_000101", "2010_000202"]
VAL = ["2008_000002", "2011_000303"]


def write_mat(path, labels, categories):
    """Write a struct like SBD's, with boundaries (sparse, one per instance), labels and classes."""
    boundaries = np.empty((len(categories), 1), object)
    for index in range(len(categories)):
        boundaries[index, 0] = csc_matrix(labels == index + 1)
    instances = {
        "Boundaries": boundaries,
        "Segmentation": labels.astype(np.uint8),
        "Categories": np.array(categories, np.uint8).reshape(-1, 1),
    }
    savemat(path, {"GTinst": instances}, do_compression=True)


def write_sbd(folder):
    """Write the files and return {name: (instance number of each pixel, classes)}."""
    random = np.random.default_rng(0)
    truth = {}
    for name in ("img", "inst"):
        (folder / name).mkdir()
    for number, name in enumerate(sorted(TRAIN + VAL)):
        labels = random.integers(0, number + 1, SIZE)  # the first has no instance
        categories = random.permutation(20)[:number] + 1
        truth[name] = labels, categories
        write_mat(folder / "inst" / f"{name}.mat", labels, categories)
        Image.new("RGB", SIZE[::-1]).save(folder / "img" / f"{name}.jpg")
    # Another split, and a name that SBD does not have.
    (folder / "train.txt").write_text("\n".join(TRAIN[:1] + VAL) + "\n")
    (folder / "val.txt").write_text("\n".join(TRAIN[1:]) + "\n")
    (folder / "train_noval.txt").write_text("\n".join(TRAIN + ["2012_004331"]) + "\n")
    return truth
