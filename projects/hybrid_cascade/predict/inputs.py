"""Read images from whatever holds them: files, folders, patterns, videos, arrays.

Shapes: (H, W) the size of an image.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from detectron2.data.detection_utils import convert_PIL_to_numpy, read_image
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList
from PIL import Image, UnidentifiedImageError

Source = str | os.PathLike | np.ndarray | Image.Image
IMAGE_SUFFIXES = tuple(
    [".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm", ".pgm"]
)


class InputImage(NamedTuple):
    """An image to predict on.

    Attributes:
        name: of the file, or "video.mp4#000012", or "image_3" for the fourth of those that are no
            files.
        image: (H, W, 3) uint8 BGR, upright.
    """

    name: str
    image: np.ndarray


def read_inputs(sources: Source | Iterable[Source]) -> Iterator[InputImage]:
    """Yield the images of some sources, one at a time.

    Args:
        sources: one of these, or several. A path of an image, a video (all of its frames), a
            folder (all files in it and in its subfolders that are named like images, sorted), or a
            pattern such as "photos/*.jpg"; an array (H, W, 3) uint8 in BGR, as OpenCV reads images,
            or (H, W) grey; a PIL image. Files are rotated as their EXIF tag says.

    Raises:
        FileNotFoundError: for a path that does not exist, or a folder or pattern without images.
        ValueError: for a file that can't be read, or an array of another kind.
    """
    if isinstance(sources, Source):
        sources = [sources]
    for index, source in enumerate(sources):
        if isinstance(source, str | os.PathLike):
            for path in find_files(source):
                yield from read_file(path)
        else:
            yield InputImage(f"image_{index}", _as_bgr(source))


def as_model_input(
    x: InputImage, augmentations: Sequence[Augmentation], image_format: str
) -> dict[str, Any]:
    """Return what a detector of Detectron2 takes for an image.

    Args:
        x: the image, (H, W).
        augmentations: of the config's test images, e.g. a `ResizeShortestEdge`.
        image_format: of the model, "BGR" or "RGB".

    Returns:
        "image", (3, h, w) with values from 0 to 255; "height" and "width", H and W; "file_name".
    """
    height, width = x.image.shape[:2]
    augmented = AugInput(x.image if image_format == "BGR" else x.image[:, :, ::-1])
    AugmentationList(augmentations)(augmented)
    tensor = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
    return {"image": tensor, "height": height, "width": width, "file_name": x.name}


def find_files(source: str | os.PathLike) -> list[Path]:
    """Return the file of a path, or the files of a folder or pattern, see `read_inputs`.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    else:
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
    if not found:
        kind = "folder has no image" if path.is_dir() else "file, folder or pattern has no match"
        raise FileNotFoundError(f"This {kind}: '{path}'")
    return found


def read_file(path: Path) -> Iterator[InputImage]:
    """Yield the image of a file, or the frames of a video.

    Raises:
        ValueError: if it can't be read.
    """
    try:
        yield InputImage(str(path), read_image(str(path), format="BGR"))
    except UnidentifiedImageError:
        yield from _read_video(path)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"The image '{path}' can't be read: {error}") from error


def _read_video(path: Path) -> Iterator[InputImage]:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"'{path}' is neither an image nor a video that OpenCV can read")
    try:
        number = 0
        while True:
            is_frame, frame = video.read()
            if not is_frame:
                break
            yield InputImage(f"{path}#{number:06d}", frame)
            number += 1
    finally:
        video.release()


def _as_bgr(source: np.ndarray | Image.Image) -> np.ndarray:
    if isinstance(source, Image.Image):
        return convert_PIL_to_numpy(source, "BGR")
    if isinstance(source, np.ndarray) and source.dtype == np.uint8:
        if source.ndim == 2:
            return cv2.cvtColor(source, cv2.COLOR_GRAY2BGR)
        if source.ndim == 3 and source.shape[2] == 3:
            return source
    found = (
        f"an array of {source.shape} {source.dtype}"
        if isinstance(source, np.ndarray)
        else f"a {type(source).__name__}"
    )
    raise ValueError(
        f"Images are paths, PIL images, or arrays (H, W, 3) of uint8 in BGR, not {found}"
    )
