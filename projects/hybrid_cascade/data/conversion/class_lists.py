"""Read the names of classes from the files that other tools keep them in."""

from pathlib import Path

import yaml

from ..checks import DatasetError
from ..checks.numbers import is_integer, short
from .files import read_json

USUAL_FILES = ("classes.txt", "data.yaml", "dataset.yaml")


def read_class_names(path: Path) -> list[str]:
    """Return the names of the classes, in their order.

    Args:
        path: a text file with a name in each line; YOLO's YAML file, with `names`; or a file in
            COCO's format, whose categories are taken in the order of their ids.

    Raises:
        DatasetError: if there are no such names, or one is there twice.
    """
    if path.suffix == ".json":
        content = read_json(path)
        categories = content.get("categories") if isinstance(content, dict) else None
        try:
            names = [c["name"] for c in sorted(categories, key=lambda c: c["id"])]
        except (TypeError, KeyError) as error:
            raise DatasetError(f"'{path}' has no `categories` with `id` and `name`") from error
    else:
        try:
            text = path.read_text(encoding="utf-8")
            is_yaml = path.suffix in (".yaml", ".yml")
            names = _of_yaml(yaml.safe_load(text), path) if is_yaml else _lines(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DatasetError(f"'{path}' can't be read: {error}") from error
    if not names or not all(isinstance(name, str) and name for name in names):
        raise DatasetError(f"'{path}' has the classes {short(names)}; they are texts, at least one")
    if len(set(names)) < len(names):
        same = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"'{path}' has the class {same!r} twice")
    return names


def find_class_list(folder: Path) -> Path:
    """Return the file with the classes of YOLO's labels: in their folder, or up to two above.

    Raises:
        DatasetError: if there is none.
    """
    for parent in [folder, *folder.absolute().parents[:2]]:
        for name in USUAL_FILES:
            if (parent / name).is_file():
                return parent / name
    raise DatasetError(
        f"None of {', '.join(USUAL_FILES)} is in '{folder}' or up to two folders above, so the "
        "names of the classes are not known: give --classes"
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _of_yaml(content: object, path: Path) -> list:
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(filter(is_integer, names)) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise DatasetError(
            f"'{path}' has `names` {short(names)}; it is a list, or a dict from 0 on"
        )
    return names
