"""Check image files and label maps: their headers always, their pixels on request."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from struct import error as StructError
from typing import TypeVar

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

from .progress import progress
from .report import Kind, Level, Report

Result = TypeVar("Result")

# What Pillow raises for files that are missing, no images, truncated or corrupt.
READ_ERRORS = (OSError, SyntaxError, EOFError, StructError, Image.DecompressionBombError)
MOST_THREADS = 8
MOST_LOPSIDED = 1000  # an image whose sides differ by more than this is resized to nothing
EIGHT_BIT_MODES = ("L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "1", "LA", "PA", "La", "RGBa", "HSV")

SEMANTIC_NUM_CLASSES_KEYS = (
    "`model.semantic_branch.num_classes` / `MODEL.SEMANTIC_BRANCH.NUM_CLASSES`"
)

MISSING = Kind(
    "files that do not exist",
    "Put them there, or correct the folder that the dataset was registered with.",
)
UNREADABLE = Kind("files that cannot be read as an image", "Replace them.")
BOMB = Kind(
    "images of too many pixels",
    "Make them smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the files.",
)
OTHER_SIZE = Kind(
    "images of another size than annotated",
    "Correct `width` and `height` in the annotations, or restore the images that were annotated.",
)
THIN = Kind("images of one pixel, or one line of pixels", "Remove them from the dataset.")
DEPTH = Kind(
    "images of more than 8 bits",
    "All values above 255 would be 255. Convert them to 8 bits, as they should look.",
)
MAP_SIZE = Kind("label maps of another size than their images", "Make one label per pixel.")
MAP_MODE = Kind(
    "label maps that are not single-channel",
    "Label maps are single-channel, 8 or 16 bit, without palette. Save the labels as a greyscale "
    "PNG.",
)
MAP_VALUE = Kind(
    "label maps with values out of range",
    f"Correct the maps, or set {SEMANTIC_NUM_CLASSES_KEYS} to the number of labels.",
)
MAP_DEPTH = Kind(
    "label maps with values that do not fit in 8 bits",
    "Detectron2 reads them with 8 bits: those above 255 become 255, those below 0 become 0. Use "
    "other values.",
)
MAP_EMPTY = Kind("label maps without any label", "Compare them with their images.", Level.ODD)


def check_image_files(images: Sequence[dict], report: Report, *, decode: bool) -> None:
    """Report image files that are missing, unreadable, or of another size than annotated.

    Args:
        images: in Detectron2's format, with "file_name".
        report: gets the faults.
        decode: read all pixels, not the headers alone.
    """

    def check(image: dict) -> list[tuple[Kind, str]]:
        path = image["file_name"]
        with _reading(path, "file_name") as found, _open(path) as opened:
            found += _check_header(image, opened)
            if decode:
                opened.load()
        return found

    for found in in_threads(check, images, "images"):
        for kind, example in found:
            report.add(kind, example)


def check_label_maps(
    images: Sequence[dict], report: Report, *, num_classes: int, ignore_value: int
) -> None:
    """Report label maps that are missing or unreadable, or have other values or another size.

    Args:
        images: in Detectron2's format, with "sem_seg_file_name".
        report: gets the faults.
        num_classes: labels are in [0, num_classes).
        ignore_value: the value of pixels without a label.
    """

    def check(image: dict) -> list[tuple[Kind, str]]:
        path = image["sem_seg_file_name"]
        with _reading(path, "sem_seg_file_name") as found, _open(path) as opened:
            found += _check_labels(image, opened, num_classes, ignore_value)
        return found

    for found in in_threads(check, images, "label maps"):
        for kind, example in found:
            report.add(kind, example)


def in_threads(
    check: Callable[[dict], Result], images: Sequence[dict], what: str
) -> Iterator[Result]:
    """Yield what a function returns for each image, with a progress bar after some seconds."""
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        yield from progress(what, len(images), pool.map(check, images))


@contextmanager
def _reading(path: str, key: str) -> Iterator[list[tuple[Kind, str]]]:
    """Yield a list of faults, and add to it that the file can't be read."""
    found: list[tuple[Kind, str]] = []
    try:
        yield found
    except FileNotFoundError:
        found.append((MISSING, f"`{key}` '{path}' does not exist"))
    except Image.DecompressionBombError as error:
        found.append((BOMB, f"`{key}` '{path}' ({error})"))
    except (*READ_ERRORS, ValueError) as error:
        found.append((UNREADABLE, f"`{key}` '{path}' cannot be read as an image ({error})"))


@contextmanager
def _open(path: str) -> Iterator[Image.Image]:
    """Open an image file. Pillow reads only its header until the pixels are used."""
    with PathManager.open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as opened:
            yield opened


def read_size(path: str) -> tuple[int, int]:
    """Return the (width, height) in pixels of an image file, as Detectron2 will load it.

    Raises:
        One of `READ_ERRORS`, or a ValueError, if it can't be read.
    """
    with _open(path) as opened:
        return _size_as_loaded(opened, opened.size)


def _size_as_loaded(opened: Image.Image, expected: tuple[int, int]) -> tuple[int, int]:
    """Return the image's (width, height) in pixels, as Detectron2 will load it."""
    width, height = opened.size
    # Pillow decodes a whole PNG to look for a tag after the pixels, where hardly any has one.
    if opened.format == "PNG" and "exif" not in opened.info and opened.size == expected:
        return width, height
    # Detectron2 rotates an image as its EXIF tag says; 5 to 8 swap width and height.
    orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
    is_turned = isinstance(orientation, int) and 5 <= orientation <= 8
    return (height, width) if is_turned else (width, height)


def _check_header(image: dict, opened: Image.Image) -> list[tuple[Kind, str]]:
    path, found = image["file_name"], []
    expected = (image.get("width", opened.width), image.get("height", opened.height))
    width, height = _size_as_loaded(opened, expected)
    if not {"width", "height"} <= image.keys():
        expected = (image.get("width", width), image.get("height", height))
    if (width, height) != expected:
        found.append(
            (
                OTHER_SIZE,
                f"image '{path}' is {width}x{height} pixels (width x height), but its `width` and "
                f"`height` say {expected[0]}x{expected[1]}",
            )
        )
    if min(width, height) < 2 or max(width, height) > MOST_LOPSIDED * min(width, height):
        found.append((THIN, f"image '{path}' is {width}x{height} pixels (width x height)"))
    if opened.mode not in EIGHT_BIT_MODES:
        found.append(
            (DEPTH, f"image '{path}' has the pixel format '{opened.mode}' (Pillow's name)")
        )
    return found


def _check_labels(
    image: dict, opened: Image.Image, num_classes: int, ignore_value: int
) -> list[tuple[Kind, str]]:
    path, found = image["sem_seg_file_name"], []
    expected = (image.get("width", opened.width), image.get("height", opened.height))
    if opened.size != expected:
        found.append(
            (
                MAP_SIZE,
                f"label map '{path}' is {opened.width}x{opened.height} pixels (width x height), "
                f"its image is {expected[0]}x{expected[1]}",
            )
        )
    # "P" has one channel too, but loaded as gray it has the palette's colors.
    if opened.mode not in ("L", "I") and not opened.mode.startswith("I;16"):
        what = f"label map '{path}' has the pixel format '{opened.mode}' (Pillow's name)"
        return [*found, (MAP_MODE, what)]
    labels = np.asarray(opened).astype(np.int64)
    is_ignored = labels == ignore_value
    for kind, wrong, limits in (
        (MAP_DEPTH, labels[(labels < 0) | (labels > 255)], "[0, 255]"),
        (
            MAP_VALUE,
            labels[(labels >= num_classes) & (labels <= 255) & ~is_ignored],
            f"[0, {num_classes}), or {ignore_value} to be ignored",
        ),
    ):
        if wrong.size:
            value = wrong.min() if wrong.min() < 0 else wrong.max()
            what = f"has the value {value} ({wrong.size} pixels are out of range)"
            found.append((kind, f"label map '{path}' {what}; values must be in {limits}"))
    if is_ignored.all():
        found.append((MAP_EMPTY, f"label map '{path}' has the value {ignore_value} only"))
    return found
