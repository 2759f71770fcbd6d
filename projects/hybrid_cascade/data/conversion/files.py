"""What the readers of all formats share: files, image sizes, polygons."""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..checks import READ_ERRORS, DatasetError
from ..checks.image_files import read_size
from ..checks.numbers import is_number, short
from .coco_writer import LabelledImage, Polygon

MOST_LISTED = 10


def read_each(
    paths: Sequence[Path], read: Callable[[Path], LabelledImage]
) -> Iterator[LabelledImage]:
    """Yield what is read of each file, with a progress bar.

    Raises:
        DatasetError: at the end, with the faults of the first files that have any.
    """
    errors = []
    for path in tqdm(paths, desc="Reading", unit="file", delay=2, leave=False):
        try:
            image = read(path)
        except DatasetError as error:
            errors.append(str(error))
        else:
            yield image
    if errors:
        more = [f"… and {len(errors) - MOST_LISTED} more"] if len(errors) > MOST_LISTED else []
        raise DatasetError("\n".join([*errors[:MOST_LISTED], *more]))


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files in a folder and below it that end like this, sorted.

    Raises:
        DatasetError: if there is none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not found:
        raise DatasetError(f"'{folder}' has no files *{', *'.join(suffixes)}")
    return found


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DatasetError: if it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"'{path}' can't be read as JSON: {error}") from error


def find_image(candidates: Iterable[Path], root: Path, place: str) -> tuple[str, int, int]:
    """Return the first of some image files that there is: its name below a folder, and its size.

    Args:
        candidates: where it may be.
        root: the folder of the images.
        place: what names it, for error messages.

    Returns:
        The path relative to `root`; width and height in pixels, as the image is loaded.

    Raises:
        DatasetError: if there is none, it is not below `root`, or it can't be read.
    """
    candidates = list(dict.fromkeys(candidates))
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        looked = ", ".join(f"'{p}'" for p in candidates[:3])
        raise DatasetError(f"{place} names an image that is not there; looked for {looked}")
    absolute, top = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    if not absolute.is_relative_to(top):
        raise DatasetError(
            f"{place} names '{path}', which is outside of the images' folder '{root}'"
        )
    try:
        width, height = read_size(str(path))
    except (*READ_ERRORS, ValueError) as error:
        raise DatasetError(f"'{path}' cannot be read as an image ({error})") from error
    return absolute.relative_to(top).as_posix(), width, height


def check_size(place: str, written: tuple[Any, Any], size: tuple[int, int]) -> None:
    """Raise DatasetError if (width, height) are written down and are not those of the image."""
    if all(is_number(x) and x > 0 for x in written) and tuple(written) != size:
        raise DatasetError(
            f"{place} has width and height {written[0]:g}x{written[1]:g}, but the image has "
            f"{size[0]}x{size[1]} pixels. Restore the image that was annotated."
        )


def check_polygon(points: Any, place: str) -> Polygon:
    """Return [[x, y], ...] as a polygon.

    Raises:
        DatasetError: unless there are at least three points of finite numbers.
    """
    is_list = isinstance(points, list) and len(points) >= 3
    if not is_list or not all(map(is_point, points)):
        raise DatasetError(
            f"{place} has the points {short(points)}; a polygon has at least three, [x, y] each"
        )
    return [float(value) for point in points for value in point]


def is_point(point: Any) -> bool:
    """Tell whether a value is a list of two finite numbers."""
    return isinstance(point, list) and len(point) == 2 and all(map(is_number, point))


def box_around(polygons: Iterable[Sequence[float]]) -> list[float]:
    """Return [x1, y1, x2, y2] around [x0, y0, x1, y1, ...] lists."""
    values = list(polygons)
    xs = [x for polygon in values for x in polygon[0::2]]
    ys = [y for polygon in values for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs), max(ys)]


def circle(center: Sequence[float], rim: Sequence[float], corners: int = 64) -> Polygon:
    """Return a circle, given by its center and a point on it, as a polygon."""
    radius = math.dist(center, rim)
    angles = [2 * math.pi * k / corners for k in range(corners)]
    return [
        value
        for angle in angles
        for value in (center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle))
    ]
