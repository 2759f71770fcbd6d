"""Check a loaded dataset."""

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog

from .boxes import check_boxes, compare_with_masks
from .chunk import Chunk, split
from .coco_file import sizes_of
from .fields import NUM_CLASSES_KEYS, check_classes, check_crowd_flags
from .image_files import SEMANTIC_NUM_CLASSES_KEYS, check_image_files, check_label_maps
from .masks import check_masks
from .numbers import short
from .progress import progress
from .report import DatasetError, Kind, Report

logger = logging.getLogger(__name__)

IMAGES_AT_A_TIME = 1000

NO_FILE = Kind("images without a `file_name`", "Set it to the path of the image file.")
SIZE = Kind(
    "images whose `width` or `height` is no positive number", "Read them from the image file."
)
NO_LIST = Kind("`annotations` that are no list of dicts", "Correct them.")
SAME_IMAGE_ID = Kind(
    "images of the same `image_id`, or without one, in a dataset to evaluate on",
    "The evaluation knows images by `image_id`. Number the images.",
)
THING_CLASSES = Kind("another number of classes than the model's", "")
STUFF_CLASSES = Kind(
    "another number of labels than the model's",
    f"Set {SEMANTIC_NUM_CLASSES_KEYS} to it, or correct `stuff_classes`.",
)


def check_dataset(
    dataset_dicts: Sequence[dict],
    dataset_name: str | Sequence[str],
    *,
    num_classes: int,
    semantic_num_classes: int | None = None,
    semantic_ignore_value: int = 255,
    max_images: int | None = None,
    max_label_maps: int | None = 1000,
    decode: bool = False,
    evaluation: bool = False,
    masks: bool = False,
    stop: bool = True,
) -> None:
    """Raise `DatasetError` with all mistakes in a dataset that spoil a training; log oddities.

    Every annotation is read. Not mistakes are images without annotations, images with crowd
    annotations only, and dicts without a `sem_seg_file_name` (their semantic targets can be painted
    from masks or boxes).

    Args:
        dataset_dicts: images in Detectron2's dataset format, as `DatasetCatalog.get` returns them.
        dataset_name: the registered name, or those of a union; the metadata say how many classes of
            things and labels there are.
        num_classes: classes of things that the model predicts.
        semantic_num_classes: labels that the semantic branch predicts; None for a model without
            such a branch. Label maps are not opened then.
        semantic_ignore_value: the value in label maps of pixels without a label.
        max_images: the most image files to open. Of more, they are evenly spaced. None: all.
        max_label_maps: the same for label maps, all pixels of which are read.
        decode: read all pixels of all images and label maps, to find files that are truncated or
            corrupt. Otherwise the headers of the images are read.
        evaluation: the dataset is evaluated on, so that images need an `image_id` of their own.
        masks: masks are evaluated, so that each annotation needs one.
        stop: False: log the mistakes instead of raising them.

    Raises:
        DatasetError: says what is wrong, where, and what to do.
    """
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
    where = f"Dataset '{' + '.join(names)}'"
    if len(dataset_dicts) == 0:
        raise DatasetError(f"{where} has no images. Check the annotation file it was loaded from.")
    report = Report(where)
    has_all_classes = _check_class_names(names, num_classes, report)
    images = _usable_images(dataset_dicts, report)
    if evaluation:
        _check_image_ids(images, report)
    with progress(names[0], len(images)) as bar:
        for part in split(images, IMAGES_AT_A_TIME):
            _check_annotations(part, num_classes if has_all_classes else None, masks, report)
            bar.update(len(part))
    max_images = len(images) if max_images is None or decode else max_images
    check_image_files(_sample(images, max_images, "images", where), report, decode=decode)
    if semantic_num_classes is not None:
        images = [image for image in images if "sem_seg_file_name" in image]
        if images:
            _check_label_names(names, semantic_num_classes, report)
        max_images = len(images) if max_label_maps is None or decode else max_label_maps
        check_label_maps(
            _sample(images, max_images, "label maps", where),
            report,
            num_classes=semantic_num_classes,
            ignore_value=semantic_ignore_value,
        )
    report.close(stop=stop)


def _sample(images: list[dict], most: int, what: str, where: str) -> list[dict]:
    """Return the images to open: all, or `most` that are evenly spaced."""
    if len(images) <= most:
        return images
    logger.info(
        "%s: opening %d of its %d %s to check them, evenly spaced.",
        *(where, most, len(images), what),
    )
    return [images[i] for i in np.linspace(0, len(images) - 1, most).astype(int)]


def _check_class_names(names: list[str], num_classes: int, report: Report) -> bool:
    """Report datasets of another number of classes. Return whether there are none."""
    numbers = {}
    for name in names:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and len(classes) != num_classes:
            numbers[name] = len(classes)
    for name, number in numbers.items():
        what = (
            f"'{name}' has {number} classes of things, but `num_classes` of the model is "
            f"{num_classes}. Set {NUM_CLASSES_KEYS} to {number}"
        )
        report.add(THING_CLASSES, what)
    return not numbers


def _check_label_names(names: list[str], num_classes: int, report: Report) -> None:
    for name in names:
        labels = MetadataCatalog.get(name).get("stuff_classes")
        if labels is not None and len(labels) != num_classes:
            what = (
                f"'{name}' has {len(labels)} labels (`stuff_classes`), but the semantic branch has "
                f"{num_classes}"
            )
            report.add(STUFF_CLASSES, what)


def _usable_images(dataset_dicts: Sequence[dict], report: Report) -> list[dict]:
    """Return the images of which annotations and files can be looked at."""
    usable = []
    for index, image in enumerate(dataset_dicts):
        name, annotations = image.get("file_name"), image.get("annotations", [])
        if not isinstance(name, str) or not name:
            report.add(NO_FILE, f"image {index} has `file_name` {short(name)}")
            continue
        sides = {key: image[key] for key in ("width", "height") if key in image}
        if not all(isinstance(x, int | float | np.number) and x > 0 for x in sides.values()):
            report.add(SIZE, f"image '{name}' has {sides}")
            continue
        if not isinstance(annotations, list | tuple) or not all(
            isinstance(annotation, dict) for annotation in annotations
        ):
            report.add(NO_LIST, f"image '{name}' has `annotations` {short(annotations)}")
            continue
        usable.append(image)
    return usable


def _check_image_ids(images: list[dict], report: Report) -> None:
    seen = set()
    for image in images:
        image_id = image.get("image_id")
        if not isinstance(image_id, int | str | np.integer) or image_id in seen:
            what = f"image '{image['file_name']}' has `image_id` {short(image_id)}"
            report.add(SAME_IMAGE_ID, what)
        else:
            seen.add(image_id)


def _check_annotations(
    images: Sequence[dict], num_classes: int | None, masks: bool, report: Report
) -> None:
    annotations, owners, positions = [], [], []
    for image in images:
        of_image = image.get("annotations", ())
        annotations.extend(of_image)
        owners.extend([image] * len(of_image))
        positions.extend(range(len(of_image)))

    def place_of(index: int) -> str:
        return f"annotation {positions[index]} of image '{owners[index]['file_name']}'"

    report.num_instances += len(annotations)
    chunk = Chunk(annotations, sizes_of(owners), place_of, report)
    check_crowd_flags(chunk, needed=False)
    if num_classes is not None:
        check_classes(chunk, num_classes)
    boxes, written = check_boxes(chunk, in_coco_format=False)
    compare_with_masks(chunk, boxes, written, check_masks(chunk, needed=masks))
