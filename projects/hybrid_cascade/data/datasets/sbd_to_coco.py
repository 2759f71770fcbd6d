"""Convert SBD's .mat files to COCO JSON. sbd.py describes the folder and registers the result."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from tqdm import tqdm

from ..checks import DatasetError
from .sbd import sbd_json_file

logger = logging.getLogger(__name__)

# Numbers of images in the splits of SDS (Hariharan et al., ECCV 2014), MNC and others.
PUBLISHED_SIZES = {"train": 5623, "val": 5732}
_MAX_LISTED = 10


def prepare_sbd(root: str | os.PathLike, train_list: str | os.PathLike | None = None) -> None:
    """Write the annotations of both splits in COCO's format, for `register_sbd`.

    A call may be interrupted and repeated at any time. It continues with the image at which the
    last one stopped, and keeps a JSON file that already has the right images.

    Args:
        root: SBD's folder, as sbd.py describes it.
        train_list: a file with the name of a training image in each line; names that SBD does not
            have are ignored. All other images of SBD are the val split. By default
            `train_noval.txt` in `root`. VOC 2012's `ImageSets/Main/train.txt` works too.

    Raises:
        DatasetError: lists or images are missing, or files in `inst` are missing or damaged. The
            message names them. All other images have been read by then and are not read again.
        ImportError: scipy is not installed.
    """
    try:
        import scipy.io  # noqa: F401  only SBD needs it
    except ImportError as error:
        raise ImportError("SBD's .mat files are read with scipy: pip install scipy") from error
    root = Path(root)
    train_list = root / "train_noval.txt" if train_list is None else Path(train_list)
    for split, names in _split_names(root, train_list).items():
        _write_split(root, split, names)


def _split_names(root: Path, train_list: Path) -> dict[str, list[str]]:
    """Return the names of the images of each split, and warn if there are too many or too few."""
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
    return splits


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
    """Write the JSON file of a split, unless it is there already."""
    json_file = sbd_json_file(root, split)
    if _has_images(json_file, names):
        logger.info("'%s' is there already; delete it to have it made anew.", json_file)
        return
    json_file.parent.mkdir(exist_ok=True)
    converted_file = json_file.with_suffix(".jsonl")
    converted = _convert_images(root, split, names, converted_file)
    # Written under another name first, so that there is never half a JSON file.
    whole = json_file.with_suffix(".tmp")
    whole.write_text(json.dumps(_to_coco(split, [(name, *converted[name]) for name in names])))
    os.replace(whole, json_file)
    converted_file.unlink()
    logger.info("'%s': %d images", json_file, len(names))


def _has_images(json_file: Path, names: Sequence[str]) -> bool:
    if not json_file.is_file():
        return False
    with open(json_file) as file:
        images = json.load(file)["images"]
    return [image["file_name"] for image in images] == [f"{name}.jpg" for name in names]


def _convert_images(
    root: Path, split: str, names: Sequence[str], converted_file: Path
) -> dict[str, list]:
    """Convert the images that are not in `converted_file` yet, and add them to it.

    Returns:
        For each name, what `_read_annotations` returned.
    """
    converted = _read_converted(converted_file)
    errors = []
    with open(converted_file, "a") as file:
        file.write("\n")  # ends the line that an interrupted call was writing
        for name in tqdm(names, desc=f"sbd_{split}", unit="image"):
            if name in converted:
                continue
            try:
                converted[name] = _read_annotations(root, name)
            except DatasetError as error:
                errors.append(str(error))
                continue
            file.write(json.dumps([name, converted[name]]) + "\n")
            file.flush()
    if errors:
        more = f"\n... and {len(errors) - _MAX_LISTED} more" if len(errors) > _MAX_LISTED else ""
        raise DatasetError(
            f"{len(errors)} of the {len(names)} images of sbd_{split} can't be used. Unpack SBD's "
            "archive again and start anew; what has been read is kept.\n"
            + "\n".join(errors[:_MAX_LISTED])
            + more
        )
    return converted


def _read_converted(path: Path) -> dict[str, list]:
    """Return what earlier calls converted: for each name, what `_read_annotations` returned."""
    converted = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            name, annotations = json.loads(line)
        except ValueError:  # empty or cut off
            continue
        converted[name] = annotations
    return converted


def _read_annotations(root: Path, name: str) -> list:
    """Return height and width of an image in pixels, and a list of its instances.

    An instance is [class 1 to 20, run-length encoded mask].
    """
    image = root / "img" / f"{name}.jpg"
    if not image.is_file():
        raise DatasetError(f"'{image}' does not exist.")
    labels, categories = _read_mat(root / "inst" / f"{name}.mat")
    masks = labels[:, :, None] == np.arange(1, len(categories) + 1)
    regions = mask_util.encode(np.asfortranarray(masks, dtype=np.uint8))
    for region in regions:
        region["counts"] = region["counts"].decode("ascii")
    # A number that no pixel has is not an instance.
    visible = masks.any(axis=(0, 1))
    return [
        *labels.shape,
        [
            [category, region]
            for category, region, kept in zip(categories.tolist(), regions, visible, strict=True)
            if kept
        ],
    ]


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) instance numbers, 0 for none, and (G,) classes of the instances, 1 to 20."""
    from scipy.io import loadmat

    try:
        instances = loadmat(str(path), variable_names=["GTinst"])["GTinst"][0, 0]
        labels, categories = instances["Segmentation"], instances["Categories"].ravel()
        if labels.ndim != 2 or labels.max() > len(categories):
            raise ValueError(f"{labels.shape} pixels, {len(categories)} classes of instances")
        if len(categories) and not 1 <= categories.min() <= categories.max() <= len(CLASS_NAMES):
            raise ValueError(f"classes {categories.tolist()}")
    except FileNotFoundError as error:
        raise DatasetError(f"'{path}' does not exist.") from error
    except Exception as error:  # scipy's errors differ with where in the file the damage is
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(f"'{path}' is damaged or not an instance file ({reason}).") from error
    return labels, categories


def _to_coco(split: str, images: Sequence[tuple]) -> dict:
    """Return COCO's format, from (name, height, width, instances) of each image."""
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
