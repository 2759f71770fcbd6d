"""The images of VOC 2012 that SBD has no masks of, to train on boxes beside SBD's masks.

    $DETECTRON2_DATASETS/VOC2012/   Annotations/, ImageSets/Main/trainval.txt, JPEGImages/
    $DETECTRON2_DATASETS/sbd/       train.txt and val.txt: together, the names of SBD's images

Detectron2 has VOC itself, as `voc_2007_trainval` and so on; docs/sbd.md trains on the union.
"""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

from ..checks import DatasetError

NAME = "voc_2012_trainval_without_sbd"


def register_voc_without_sbd(voc_root: str | os.PathLike, sbd_root: str | os.PathLike) -> None:
    """Register `voc_2012_trainval_without_sbd`: boxes without masks, of VOC's 20 classes.

    Args:
        voc_root: VOC 2012's folder.
        sbd_root: SBD's folder.
    """

    def load() -> list[dict]:
        names_of_sbd = set()
        for path in (Path(sbd_root) / "train.txt", Path(sbd_root) / "val.txt"):
            names_of_sbd.update(_read(path).split())
        _read(Path(voc_root) / "ImageSets" / "Main" / "trainval.txt")
        images = load_voc_instances(str(voc_root), "trainval", CLASS_NAMES)
        return [image for image in images if image["image_id"] not in names_of_sbd]

    DatasetCatalog.register(NAME, load)
    MetadataCatalog.get(NAME).set(
        thing_classes=list(CLASS_NAMES),
        dirname=str(voc_root),
        year=2012,
        split="trainval",
        evaluator_type="pascal_voc",
    )


def _read(path: Path) -> str:
    if not path.is_file():
        raise DatasetError(
            f"Dataset '{NAME}': '{path}' does not exist. docs/sbd.md says what belongs where; "
            "DETECTRON2_DATASETS is the folder that VOC2012/ and sbd/ are in."
        )
    return path.read_text()
