"""The Semantic Boundaries Dataset (SBD): PASCAL VOC's images with masks of all instances.

SBD (Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011) has the masks of all
instances of VOC's 20 classes in 11,355 of VOC's images. MNC's paper trains and tests on it. Its
folder, and what `prepare_sbd` adds to it:

    $DETECTRON2_DATASETS/sbd/      benchmark_RELEASE/dataset of SBD's archive
      img/2008_000008.jpg, ...     images
      inst/2008_000008.mat, ...    GTinst.Segmentation: the number of the instance of each pixel, 0
                                   for none; GTinst.Categories: the class of each instance, 1 to 20
      train.txt, val.txt           names of all images, in a split that is not used
      train_noval.txt              the 5,623 that are not in VOC 2012's val; from SBD's home page
      annotations/sbd_{train,val}.json   written: COCO's format, masks run-length encoded

VOC's own masks have a border of ignored pixels around each object. SBD's do not: every pixel is
part of an instance or of the background. docs/sbd.md says where the files come from.
"""

import os
from functools import partial
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from ..checks import DatasetError
from .coco_json import register_coco_json

SPLITS = ("train", "val")


def register_sbd(root: str | os.PathLike) -> None:
    """Register `sbd_train` and `sbd_val`, to be evaluated with `VOCRegionEvaluator` too.

    Args:
        root: SBD's folder, with what `prepare_sbd` wrote.
    """
    for split in SPLITS:
        name = f"sbd_{split}"
        json_file = sbd_json_file(root, split)
        register_coco_json(
            name,
            str(json_file),
            os.path.join(root, "img"),
            evaluator_type="voc_region",
            prepare=partial(_check_prepared, json_file),
        )
        MetadataCatalog.get(name).set(thing_classes=list(CLASS_NAMES))


def sbd_json_file(root: str | os.PathLike, split: str) -> Path:
    """Return where `prepare_sbd` writes the annotations of a split."""
    return Path(root) / "annotations" / f"sbd_{split}.json"


def _check_prepared(json_file: Path) -> None:
    if not json_file.is_file():
        raise DatasetError(
            f"SBD's '{json_file}' does not exist. tools/prepare_sbd.py writes it (docs/sbd.md); "
            "DETECTRON2_DATASETS is the folder that sbd/ is in."
        )
