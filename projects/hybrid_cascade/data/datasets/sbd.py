"""PASCAL VOC's images with the instance masks of SBD, as COCO JSON: what MNC was published with.

The Semantic Boundaries Dataset (Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV
2011) has the masks of all instances of VOC's 20 classes in 11,355 of VOC's images. Its folder, and
what `prepare_sbd` adds to it:

    $DETECTRON2_DATASETS/sbd/      benchmark_RELEASE/dataset of SBD's archive
      img/2008_000008.jpg, ...     images
      inst/2008_000008.mat, ...    GTinst.Segmentation: the number of the instance of each pixel, 0
                                   for none; GTinst.Categories: the class of each instance, 1 to 20
      train.txt, val.txt           names of all images, in a split that is not used
      train_noval.txt              the 5,623 that are not in VOC 2012's val; from SBD's home page
      annotations/sbd_{train,val}.json   written: COCO's format, masks run-length encoded

VOC's own masks have a border of ignored pixels around each object. SBD's have none: every pixel is
some instance's or background. docs/sbd.md says where the files come from.
"""

import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from tqdm import tqdm

from ..checks import DatasetError
from .coco_json import register_coco_json

logger = logging.getLogger(__name__)

# Images in the splits that SDS (Hariharan et al., ECCV 2014), MNC and others trained and tested on.
PUBLISHED_SIZES = {"train": 5623, "val": 5732}
_MAX_LISTED = 10


def register_sbd(root: str | os.PathLike) -> None:
    """Registers `sbd_train` and `sbd_val`, and that `VOCRegionEvaluator` evaluates them.

    Args:
        root: SBD's folder, with what `prepare_sbd` wrote.
    """
    for split in PUBLISHED_SIZES:
        name = f"sbd_{split}"
        json_file = _json_file(Path(root), split)
        register_coco_json(
            name,
            str(json_file),
            os.path.join(root, "img"),
            evaluator_type="voc_region",
            prepare=partial(_check_prepared, json_file),
        )
        MetadataCatalog.get(name).set(thing_classes=list(CLASS_NAMES))


def prepare_sbd(root: str | os.PathLike, train_list: str | os.PathLike | None = None) -> None:
    """Writes the annotations of both splits in COCO's format, for `register_sbd`.

    May be interrupted and called again at any time: it goes on with the image at which it stopped,
    and leaves alone a JSON that has the images asked for.

    Args:
        root: SBD's folder, as the module describes it.
        train_list: a file with one name of a training image per line; names that SBD does not have
            are passed over. All other images of SBD are the val split. By default
            `train_noval.txt` in `root`; VOC 2012's `ImageSets/Main/train.txt` is as good.

    Raises:
        DatasetError: lists or images are missing, or files in `inst` are missing or damaged; names
            them. All other images have been read by then, and will not be read again.
        ImportError: scipy is not installed.
    """
    try:
        import scipy.io  # noqa: F401  only SBD needs it
    except ImportError as error:
        raise ImportError("SBD's .mat files are read with scipy: pip install scipy") from error
    root = Path(root)
    train_list = root / "train_noval.txt" if train_list is None else Path(train_list)
    in_train = set(_read_names(train_list))
    names = sorted({*_read_names(root / "train.txt"), *_read_names(root / "val.txt")})
    splits = {
        "train": [name for name in names if name in in_train],
        "val": [name for name in names if name not in in_train],
    }
    for split, split_names in splits.items():
        if not split_names:
            raise DatasetError(
                f"The {split} split is empty: of SBD's {len(names)} images '{train_list}' names "
                f"{len(splits['train'])}. It must name some of them, but not all."
            )
        if len(split_names) != PUBLISHED_SIZES[split]:
            logger.warning(
                "The %s split has %d images, the published one has %d.",
                split,
                len(split_names),
                PUBLISHED_SIZES[split],
            )
    for split, split_names in splits.items():
        _write_split(root, split, split_names)


def _check_prepared(json_file: Path) -> None:
    if not json_file.is_file():
        raise DatasetError(
            f"SBD's '{json_file}' does not exist. tools/prepare_sbd.py writes it (docs/sbd.md); "
            "DETECTRON2_DATASETS is the folder that sbd/ is in."
        )


def _json_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"sbd_{split}.json"


def _read_names(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except FileNotFoundError as error:
        raise DatasetError(
            f"The list of images '{path}' does not exist. SBD's archive has train.txt and val.txt "
            "in benchmark_RELEASE/dataset; train_noval.txt is at "
            "http://home.bharathh.info/pubs/codes/SBD/train_noval.txt, or give VOC 2012's "
            "ImageSets/Main/train.txt in its place (--train-list)."
        ) from error


def _write_split(root: Path, split: str, names: Sequence[str]) -> None:
    """Converts the images that an earlier call has not, then writes the JSON at once."""
    json_file = _json_file(root, split)
    file_names = [f"{name}.jpg" for name in names]
    if json_file.is_file():
        with open(json_file) as file:
            if [image["file_name"] for image in json.load(file)["images"]] == file_names:
                logger.info("'%s' is there already; delete it to have it made anew.", json_file)
                return
    json_file.parent.mkdir(exist_ok=True)
    converted_file = json_file.with_suffix(".jsonl")
    converted = _read_converted(converted_file)
    errors = []
    with open(converted_file, "a") as file:
        file.write("\n")  # ends the line that an interrupted call was writing
        for name in tqdm(names, desc=f"sbd_{split}", unit="image"):
            if name in converted:
                continue
            try:
                annotations = _read_annotations(root, name)
            except DatasetError as error:
                errors.append(str(error))
                continue
            converted[name] = annotations
            file.write(json.dumps([name, annotations]) + "\n")
            file.flush()
    if errors:
        more = f"\n... and {len(errors) - _MAX_LISTED} more" if len(errors) > _MAX_LISTED else ""
        raise DatasetError(
            f"{len(errors)} of the {len(names)} images of sbd_{split} can't be used. Unpack SBD's "
            "archive again and start anew; what has been read is kept.\n"
            + "\n".join(errors[:_MAX_LISTED])
            + more
        )
    # Under another name first, so that a JSON is always whole.
    whole = json_file.with_suffix(".tmp")
    whole.write_text(json.dumps(_to_coco(split, [(name, *converted[name]) for name in names])))
    os.replace(whole, json_file)
    converted_file.unlink()
    logger.info("'%s': %d images", json_file, len(names))


def _read_converted(path: Path) -> dict[str, list]:
    """What an interrupted call has converted: by name, what `_read_annotations` returned."""
    converted = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            name, annotations = json.loads(line)
        except ValueError:  # empty, or not written to its end
            continue
        converted[name] = annotations
    return converted


def _read_annotations(root: Path, name: str) -> list:
    """Height and width of an image in pixels, and its instances: [class 1 to 20, RLE] each."""
    from scipy.io import loadmat

    image = root / "img" / f"{name}.jpg"
    if not image.is_file():
        raise DatasetError(f"'{image}' does not exist.")
    path = root / "inst" / f"{name}.mat"
    try:
        instances = loadmat(str(path), variable_names=["GTinst"])["GTinst"][0, 0]
        labels, categories = instances["Segmentation"], instances["Categories"].ravel()
        if labels.ndim != 2 or labels.max() > len(categories):
            raise ValueError(f"{labels.shape} pixels, {len(categories)} classes of instances")
        if len(categories) and not 1 <= categories.min() <= categories.max() <= len(CLASS_NAMES):
            raise ValueError(f"classes {categories.tolist()}")
    except FileNotFoundError as error:
        raise DatasetError(f"'{path}' does not exist.") from error
    except Exception as error:  # scipy raises anything, by where in the file the damage is
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(f"'{path}' is damaged or not an instance file ({reason}).") from error
    masks = labels[:, :, None] == np.arange(1, len(categories) + 1)
    regions = mask_util.encode(np.asfortranarray(masks, dtype=np.uint8))
    for region in regions:
        region["counts"] = region["counts"].decode("ascii")
    # A number that no pixel has is no instance.
    visible = masks.any(axis=(0, 1))
    return [
        *labels.shape,
        [
            [category, region]
            for category, region, kept in zip(categories.tolist(), regions, visible, strict=True)
            if kept
        ],
    ]


def _to_coco(split: str, images: Sequence[tuple]) -> dict:
    """COCO's format, from (name, height, width, instances) of each image."""
    annotations = [
        {
            "image_id": image_id,
            "category_id": category,
            "segmentation": region,
            "bbox": mask_util.toBbox(region).tolist(),
            "area": int(mask_util.area(region)),
            "iscrowd": 0,
        }
        for image_id, (_, _, _, instances) in enumerate(images, start=1)
        for category, region in instances
    ]
    return {
        "info": {"description": f"SBD, {split}"},
        "images": [
            {"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width}
            for image_id, (name, height, width, _) in enumerate(images, start=1)
        ],
        "annotations": [{"id": id_} | a for id_, a in enumerate(annotations, start=1)],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(CLASS_NAMES, start=1)],
    }
