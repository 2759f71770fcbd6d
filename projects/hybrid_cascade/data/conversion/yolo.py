"""Read YOLO's labels, a text file for each image with a line for each object.

A line has the number of the class and fractions of the image's width and height: the center and the
size of a box, or the points of an outline. An outline that comes back to itself (holes are made so)
stays as it is: where it encloses a pixel twice, COCO's tools leave it out.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checks import DatasetError
from ..checks.data_file import IMAGE_SUFFIXES
from ..checks.numbers import short
from .coco_writer import LabelledImage, LabelledInstance
from .files import box_around, find_files, find_image, read_each

TOLERANCE = 0.01  # by which a fraction may leave [0, 1]


def read_yolo(
    folder: Path, image_root: Path, class_names: Sequence[str]
) -> Iterator[LabelledImage]:
    """Yield all images of a folder; those without a file of labels have no objects.

    Args:
        folder: of the labels. `a/b.jpg` among the images has `a/b.txt` here.
        image_root: the folder of the images.
        class_names: in the order of their numbers.

    Raises:
        DatasetError: names the file and the line; for files of labels without an image.
    """
    images = find_files(image_root, IMAGE_SUFFIXES)
    stems = [path.relative_to(image_root).with_suffix("") for path in images]
    if len(set(stems)) < len(stems):
        same = next(stem for stem in stems if stems.count(stem) > 1)
        raise DatasetError(
            f"'{image_root}' has several images '{same}.*', which share their labels"
        )
    labels = {p.relative_to(folder).with_suffix("") for p in find_files(folder, (".txt",))}
    alone = sorted(stem for stem in labels - set(stems) if stem.name not in ("classes", "labels"))
    if alone:
        raise DatasetError(
            f"{len(alone)} files of labels have no image in '{image_root}', such as "
            f"'{folder / alone[0]}.txt'"
        )
    if not labels & set(stems):
        raise DatasetError(f"'{folder}' has labels of none of the images in '{image_root}'")

    def read(path: Path) -> LabelledImage:
        file_name, width, height = find_image([path], image_root, f"'{path}'")
        image = LabelledImage(file_name, width, height)
        stem = path.relative_to(image_root).with_suffix("")
        if stem in labels:
            text_file = folder / f"{stem}.txt"
            image.instances = list(_read_lines(text_file, width, height, class_names))
        return image

    return read_each(images, read)


def _read_lines(
    path: Path, width: int, height: int, class_names: Sequence[str]
) -> Iterator[LabelledInstance]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"'{path}' can't be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        place = f"'{path}': line {number}"
        words = line.split()
        if not words:
            continue
        if not re.fullmatch(r"\d{1,9}", words[0]) or int(words[0]) >= len(class_names):
            raise DatasetError(
                f"{place} has the class {short(words[0])}; it is a number from 0 to "
                f"{len(class_names) - 1}"
            )
        try:
            values = [float(word) for word in words[1:]]
        except ValueError as error:
            raise DatasetError(f"{place} can't be read: {error}") from error
        is_fraction = [math.isfinite(x) and -TOLERANCE <= x <= 1 + TOLERANCE for x in values]
        if not all(is_fraction):
            wrong = values[is_fraction.index(False)]
            raise DatasetError(f"{place} has {wrong}: all are fractions of width or height")
        label = class_names[int(words[0])]
        if len(values) == 4:
            x, y, w, h = values
            box = [(x - w / 2) * width, (y - h / 2) * height]
            box += [(x + w / 2) * width, (y + h / 2) * height]
            yield LabelledInstance(label, box, None, place)
            continue
        if len(values) < 6 or len(values) % 2:
            raise DatasetError(
                f"{place} has {len(values)} numbers after the class; a box has 4, an outline at "
                "least 6, and an even number"
            )
        polygon = [value * (height if i % 2 else width) for i, value in enumerate(values)]
        yield LabelledInstance(label, box_around([polygon]), [polygon], place)
