"""Read PASCAL VOC's annotations, an XML file of boxes for each image.

VOC counts pixels from 1, and a box has its last pixel: xmin 1, xmax 10 are the ten pixels from 0 to
10. Objects that are marked difficult are objects like others.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ..checks import DatasetError
from ..checks.data_file import IMAGE_SUFFIXES
from ..checks.numbers import short
from .coco_writer import LabelledImage, LabelledInstance
from .files import check_size, find_files, find_image, read_each


def read_voc_xml(folder: Path, image_root: Path) -> Iterator[LabelledImage]:
    """Yield the images of the XML files in a folder and below it.

    Args:
        folder: of the XML files, VOC's `Annotations`.
        image_root: the folder of the images, VOC's `JPEGImages`.

    Raises:
        DatasetError: names the file, the object and its key.
    """
    paths = find_files(folder, (".xml",))
    return read_each(paths, lambda path: _read(path, image_root))


def _read(path: Path, image_root: Path) -> LabelledImage:
    root = _parse(path)
    name = (root.findtext("filename") or "").strip()
    # Some tools write another name, or leave the suffix out.
    names = [Path(name).name] if name else []
    names += [path.stem + suffix for suffix in IMAGE_SUFFIXES]
    candidates = [image_root / n for n in names]
    file_name, width, height = find_image(candidates, image_root, f"'{path}': `filename` {name!r}")
    written = tuple(_number(root, f"size/{key}", f"'{path}'", 0) for key in ("width", "height"))
    check_size(f"'{path}': `size`", written, (width, height))
    image = LabelledImage(file_name, width, height)
    for index, element in enumerate(root.findall("object")):
        place = f"'{path}': object {index}"
        label = (element.findtext("name") or "").strip()
        if not label:
            raise DatasetError(f"{place} has no `name`")
        corners = {
            key: _number(element, f"bndbox/{key}", place)
            for key in ("xmin", "ymin", "xmax", "ymax")
        }
        x1, y1, x2, y2 = corners.values()
        box = [x1 - 1, y1 - 1, x2, y2]
        if box[0] >= x2 or box[1] >= y2:
            raise DatasetError(f"{place} has the `bndbox` {corners}, which has no area")
        image.instances.append(LabelledInstance(label, [max(0, v) for v in box], None, place))
    return image


def _parse(path: Path) -> ElementTree.Element:
    try:
        data = path.read_bytes()
        # Entities, which could grow to any size, stand in a DOCTYPE. VOC's files have none.
        if b"<!DOCTYPE" in data.replace(b"\0", b"") or b"<!ENTITY" in data.replace(b"\0", b""):
            raise DatasetError(f"'{path}' has a DOCTYPE, which annotations do not need. Remove it.")
        root = ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"'{path}' can't be read as XML: {error}") from error
    if root.tag != "annotation":
        raise DatasetError(f"'{path}' is no annotation of VOC: it has <{root.tag}> at its top")
    return root


def _number(
    element: ElementTree.Element, key: str, place: str, default: float | None = None
) -> float:
    text = element.findtext(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{place} has `{key}` {short(text)}, but it is a number")
    return value
