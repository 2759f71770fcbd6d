"""What there is to predict, in jobs that processes share.

A job is a batch of images that go through the model together, or a video. The jobs of a list are
the same for any number of processes, and so are the results.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .inputs import IMAGE_SUFFIXES, find_files


@dataclass(frozen=True)
class Item:
    """An image or a video to predict on.

    Attributes:
        path: of the file.
        name: where its results go, relative to the output folder and without clashes: for a file of
            a folder the path within it, otherwise the name of the file.
        image_id: of a COCO JSON; None for other inputs.
    """

    path: str
    name: str
    image_id: int | str | None = None


def list_items(inputs: Sequence[str | os.PathLike], image_root: str = "") -> list[Item]:
    """Return the images and videos of some inputs.

    Args:
        inputs: files, folders and patterns as for `read_inputs`, text files (.txt) with a path in
            each line, and COCO's annotation files (.json).
        image_root: the folder that paths in text and JSON files are relative to.

    Raises:
        FileNotFoundError: for an input that does not exist, or has no images.
        ValueError: if a file is no list of images, or if two items have the same name.
    """
    items = []
    for source in map(Path, inputs):
        if source.suffix == ".json" and source.is_file():
            items += _items_of_coco(source, image_root)
        elif source.suffix == ".txt" and source.is_file():
            lines = [line.strip() for line in source.read_text().splitlines()]
            items += [_item_of_line(line, image_root) for line in lines if line]
        else:
            root = source if source.is_dir() else None
            items += [
                Item(str(p), str(p.relative_to(root)) if root else p.name)
                for p in find_files(source)
            ]
    if not items:
        raise FileNotFoundError(f"No images are listed in {', '.join(map(str, inputs))}")
    paths: dict[str, str] = {}
    for item in items:
        if paths.setdefault(item.name, item.path) != item.path:
            raise ValueError(
                f"The results of '{paths[item.name]}' and '{item.path}' would both be named "
                f"'{item.name}'. Give the folder that both are in."
            )
    return list({item.name: item for item in items}.values())


def _item_of_line(path: str, image_root: str) -> Item:
    return Item(os.path.join(image_root, path), _name_within(path))


def _items_of_coco(path: Path, image_root: str) -> list[Item]:
    try:
        images = json.loads(path.read_text())["images"]
        return [
            Item(
                os.path.join(image_root, image["file_name"]),
                _name_within(image["file_name"]),
                image["id"],
            )
            for image in images
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' is no annotation file in COCO's format: it needs `images`, each with "
            f"`file_name` and `id` ({type(error).__name__}: {error})"
        ) from error


def _name_within(path: str) -> str:
    """Return a path as it is if it stays within a folder, and otherwise the name of the file."""
    path = os.path.normpath(path)
    return os.path.basename(path) if os.path.isabs(path) or path.startswith("..") else path


def make_jobs(items: Sequence[Item], batch_size: int) -> list[list[int]]:
    """Return the indices of the items of each job: up to `batch_size` images, or one other file."""
    jobs: list[list[int]] = []
    is_open = False
    for index, item in enumerate(items):
        is_image = item.path.lower().endswith(IMAGE_SUFFIXES)
        if is_image and is_open and len(jobs[-1]) < batch_size:
            jobs[-1].append(index)
        else:
            jobs.append([index])
        is_open = is_image
    return jobs
