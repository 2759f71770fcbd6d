"""Compare the classes of the datasets of a training and of its evaluation."""

import logging
from collections.abc import Mapping, Sequence

from detectron2.data import MetadataCatalog

from .report import DatasetError

logger = logging.getLogger(__name__)


def check_same_classes(
    trained_with: Mapping[str, Sequence[str]],
    source: str,
    test_names: Sequence[str],
    *,
    stop: bool = True,
) -> None:
    """Raise `DatasetError` if a dataset has the classes of a training in another order.

    Other names of as many classes are logged, since they may be translations.

    Args:
        trained_with: the names of the classes, "thing_classes" and "stuff_classes".
        source: whose names these are, such as "'plants_train', which is trained on".
        test_names: those that are evaluated on. All are loaded, so that their metadata have names.
        stop: False: log it only.

    Raises:
        DatasetError: says which class is where.
    """
    for key in ("thing_classes", "stuff_classes"):
        expected = trained_with.get(key)
        for name in test_names:
            found = MetadataCatalog.get(name).get(key)
            if not expected or not found or len(expected) != len(found):
                continue  # see `check_dataset` for other numbers
            message, is_error = compare_classes(source, expected, name, found, key)
            if is_error and stop:
                raise DatasetError(message)
            if message:
                logger.warning("%s", message)


def compare_classes(
    source: str, expected: Sequence[str], name: str, found: Sequence[str], key: str
) -> tuple[str, bool]:
    """Say where a dataset of as many classes as another one has different names.

    Args:
        source: whose names are expected, such as "'plants_train', which is trained on".
        expected, found: the names.
        name: of the dataset that has the names `found`.
        key: of the names, such as "thing_classes".

    Returns:
        The first difference, in words, "" if there is none; and whether it is a mistake for sure,
        as all names are in both.
    """
    differing = [i for i, a in enumerate(expected) if a != found[i]]
    if not differing:
        return "", False
    index = differing[0]
    message = (
        f"Dataset '{name}' has other `{key}` than {source}: "
        f"class {index} is '{found[index]}' instead of '{expected[index]}'. "
    )
    if sorted(expected) != sorted(found):
        return message + "A detection of one counts as the other.", False
    return (
        f"{message}Both have the same names in another order: give a category the same `id` in "
        "both annotation files, as classes are numbered in the order of the ids."
    ), True
