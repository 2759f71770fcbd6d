"""Find what is wrong with a dataset before the first training iteration.

Most mistakes in a dataset (a category too many, a label map of another size, a folder that was
moved) appear as an index error in a loss, hours into a training or only on a GPU. `check_dataset`
finds them in the loaded dataset dicts, and its errors name the file, the key, the value, and what
to do.
"""

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from PIL import ExifTags, Image

logger = logging.getLogger(__name__)

NUM_CLASSES_KEYS = (
    "`model.roi_heads.num_classes` / `MODEL.ROI_HEADS.NUM_CLASSES` (of an SSD, "
    "`model.num_classes` / `MODEL.SSD.NUM_CLASSES`)"
)
SEMANTIC_NUM_CLASSES_KEYS = (
    "`model.semantic_branch.num_classes` / `MODEL.SEMANTIC_BRANCH.NUM_CLASSES`"
)


class DatasetError(ValueError):
    """The data cannot be trained on; the message names the file, the key and what to do."""


def check_dataset(
    dataset_dicts: Sequence[dict],
    dataset_name: str,
    *,
    num_classes: int,
    semantic_num_classes: int | None = None,
    semantic_ignore_value: int = 255,
    max_images: int = 1000,
) -> None:
    """Raise `DatasetError` at the first mistake in a dataset that would make training fail.

    Not mistakes are images without annotations, images with crowd annotations only, and dicts
    without a `sem_seg_file_name` (their semantic targets can be painted from masks or boxes).

    Args:
        dataset_dicts: images in Detectron2's dataset format, as `DatasetCatalog.get` returns them.
        dataset_name: the registered name; its metadata says how many classes of things there are.
        num_classes: classes of things that the model predicts.
        semantic_num_classes: labels that the semantic branch predicts; None for a model without
            such a branch. Label maps are not opened then.
        semantic_ignore_value: the value in label maps of pixels without a label.
        max_images: the most images to open, with their label maps. In a larger dataset they are
            evenly spaced. The annotations of all images are checked, as they are in memory.

    Raises:
        DatasetError: for a mistake; says what is wrong, where, and what to do.
    """
    where = f"Dataset '{dataset_name}'"
    if len(dataset_dicts) == 0:
        raise DatasetError(f"{where} has no images. Check the annotation file it was loaded from.")

    class_names = MetadataCatalog.get(dataset_name).get("thing_classes")
    if class_names is not None and len(class_names) != num_classes:
        raise DatasetError(
            f"{where} has {len(class_names)} classes of things, but `num_classes` of the model is "
            f"{num_classes}. Set {NUM_CLASSES_KEYS} to {len(class_names)}."
        )

    for image in dataset_dicts:
        for index, annotation in enumerate(image.get("annotations", ())):
            _check_annotation(
                annotation,
                image,
                num_classes,
                f"{where}: annotation {index} of image '{image['file_name']}'",
            )

    for index in _sample(len(dataset_dicts), max_images, where):
        image = dataset_dicts[index]
        size = _check_image_file(image, where)
        if semantic_num_classes is not None and "sem_seg_file_name" in image:
            _check_label_map(
                image["sem_seg_file_name"],
                size,
                semantic_num_classes,
                semantic_ignore_value,
                where,
            )


def check_training_labels(
    dataset_dicts: Sequence[dict],
    dataset_name: str,
    *,
    masks: str = "none",
    reads_label_maps: bool = False,
) -> None:
    """Raise `DatasetError` if images to train on lack labels that the model can't do without.

    Args:
        dataset_dicts: as for `check_dataset`.
        dataset_name: as for `check_dataset`.
        masks: what the model needs of "segmentation". "none": nothing; "some": masks of some
            instances, and it leaves out the others; "all": those of all.
        reads_label_maps: whether the model has a semantic branch that reads label maps, and so
            learns from images without "annotations" too.

    Raises:
        DatasetError: names the image, and says what to do.
    """
    where = f"Dataset '{dataset_name}'"
    num_instances = num_masks = 0
    for image in dataset_dicts:
        if "annotations" not in image and not (reads_label_maps and "sem_seg_file_name" in image):
            raise DatasetError(
                f"{where}: image '{image['file_name']}' has no `annotations`, not even an empty "
                "list. Only a model with a semantic branch learns from images without instance "
                "labels, if they have label maps (`sem_seg_file_name`)."
            )
        for index, annotation in enumerate(image.get("annotations", ())):
            if annotation.get("iscrowd", 0):
                continue
            num_instances += 1
            num_masks += has_mask(annotation)
            if masks == "all" and num_masks < num_instances:
                raise DatasetError(
                    f"{where}: annotation {index} of image '{image['file_name']}' has no "
                    "`segmentation`, and the model's ROI heads need masks of all instances. "
                    "`HTCROIHeads` and `MNCROIHeads` leave instances without a mask out of their "
                    "mask losses."
                )
    if masks == "some" and num_instances > 0 and num_masks == 0:
        raise DatasetError(
            f"{where}: none of the {num_instances} instances has a `segmentation`, and the model "
            "has masks to train. Add masks, or take a model without mask heads."
        )
    if masks == "some" and num_masks < num_instances:
        logger.info("%s: %d of %d instances have masks.", where, num_masks, num_instances)


def has_mask(annotation: dict) -> bool:
    """Tell whether an annotation in Detectron2's format has a mask of any kind."""
    segmentation = annotation.get("segmentation")
    return segmentation is not None and len(segmentation) > 0


def _sample(num_images: int, max_images: int, where: str) -> Sequence[int]:
    """Return the indices of the images to open: all, or `max_images` that are evenly spaced."""
    if num_images <= max_images:
        return range(num_images)
    logger.info(
        "%s: opening %d of its %d images to check them, evenly spaced.",
        where,
        max_images,
        num_images,
    )
    return np.linspace(0, num_images - 1, max_images).astype(int).tolist()


def _check_annotation(annotation: dict, image: dict, num_classes: int, where: str) -> None:
    category = annotation["category_id"]
    if not 0 <= category < num_classes:
        raise DatasetError(
            f"{where} has `category_id` {category}, outside [0, {num_classes}). Either the "
            f"category ids were not mapped to 0, 1, 2, ... or {NUM_CLASSES_KEYS} is too small."
        )
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        mask_size = tuple(segmentation["size"])
        # Detectron2 permits dicts without a size; then there is nothing to compare with.
        image_size = (image.get("height", mask_size[0]), image.get("width", mask_size[1]))
        if mask_size != image_size:
            raise DatasetError(
                f"{where} has a `segmentation` (RLE) of `size` {list(mask_size)}, but the image's "
                f"[height, width] is {list(image_size)}. Encode the mask at the image's size."
            )
    elif isinstance(segmentation, list):
        for polygon in segmentation:
            if len(polygon) < 6 or len(polygon) % 2:
                raise DatasetError(
                    f"{where} has a polygon of {len(polygon)} numbers in its `segmentation`. A "
                    "polygon is [x0, y0, x1, y1, ...] of at least three points; fix or remove it."
                )


def _open_image(path: str, key: str, where: str) -> Image.Image:
    """Open an image file. Pillow reads only its header until the pixels are used."""
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{where}: `{key}` '{path}' does not exist. Put the file there or correct the folder "
            "that the dataset was registered with."
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{where}: `{key}` '{path}' cannot be read as an image ({error}). Replace the file."
        ) from error


def _check_image_file(image: dict, where: str) -> tuple[int, int]:
    """Return the image's (width, height) in pixels, as Detectron2 will load it."""
    with _open_image(image["file_name"], "file_name", where) as opened:
        width, height = opened.size
        # Detectron2 rotates an image as its EXIF tag says; 5 to 8 swap width and height.
        if opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
            width, height = height, width
    expected = (image.get("width", width), image.get("height", height))
    if (width, height) != expected:
        raise DatasetError(
            f"{where}: image '{image['file_name']}' is {width}x{height} pixels (width x height), "
            f"but its `width` and `height` in the annotations say {expected[0]}x{expected[1]}. "
            "Correct them, or restore the image that was annotated."
        )
    return width, height


def _check_label_map(
    path: str, image_size: tuple[int, int], num_classes: int, ignore_value: int, where: str
) -> None:
    with _open_image(path, "sem_seg_file_name", where) as opened:
        if opened.size != image_size:
            raise DatasetError(
                f"{where}: label map '{path}' is {opened.width}x{opened.height} pixels (width x "
                f"height), its image is {image_size[0]}x{image_size[1]}. Make one label per pixel."
            )
        # "P" has one channel too, but loaded as gray it has the palette's colors.
        if opened.mode not in ("L", "I", "I;16"):
            raise DatasetError(
                f"{where}: label map '{path}' has the pixel format '{opened.mode}' (Pillow's "
                "name), but must be single-channel, 8 or 16 bit, without palette. Save the labels "
                "as a greyscale PNG."
            )
        labels = np.asarray(opened)
    wrong = labels[(labels >= num_classes) & (labels != ignore_value)]
    if wrong.size:
        raise DatasetError(
            f"{where}: label map '{path}' has the value {wrong.max()} ({wrong.size} pixels are out "
            f"of range); values must be in [0, {num_classes}), or {ignore_value} to be ignored. "
            f"Correct the map, or set {SEMANTIC_NUM_CLASSES_KEYS} to the number of labels."
        )
