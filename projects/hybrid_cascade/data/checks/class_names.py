"""Compare the classes of the datasets of a training and of its evaluation."""

import logging
from collections.abc import Sequence

from detectron2.data import MetadataCatalog

from .report import DatasetError

logger = logging.getLogger(__name__)


def check_same_classes(train_name: str, test_names: Sequence[str], *, stop: bool = True) -> None:
    """Raise `DatasetError` if a dataset has the classes of another one in another order.

    Other names of as many classes are logged, since they may be translations.

    Args:
        train_name: the dataset that is trained on.
        test_names: those that are evaluated on. All are loaded, so that their metadata have names.
        stop: False: log it only.

    Raises:
        DatasetError: says which class is where.
    """
    for key in ("thing_classes", "stuff_classes"):
        expected = MetadataCatalog.get(train_name).get(key)
        for name in test_names:
            found = MetadataCatalog.get(name).get(key)
            if not expected or not found or len(expected) != len(found):
                continue  # see `check_dataset` for other numbers
            message, is_error = compare_classes(train_name, expected, name, found, key)
            if is_error and stop:
                raise DatasetError(message)
            if message:
                logger.warning("%s", message)


def compare_classes(
    train_name: str, expected: Sequence[str], name: str, found: Sequence[str], key: str
) -> tuple[str, bool]:
    """Say where two datasets of as many classes have different names.

    Returns:
        The first difference, in words, "" if there is none; and whether it is a mistake for sure,
        as all names are in both.
    """
    differing = [i for i, a in enumerate(expected) if a != found[i]]
    if not differing:
        return "", False
    index = differing[0]
    message = (
        f"Dataset '{name}' has other `{key}` than '{train_name}', which is trained on: "
        f"class {index} is '{found[index]}' there and '{expected[index]}' here. "
    )
    if sorted(expected) != sorted(found):
        return message + "A detection of one counts as the other.", False
    return (
        f"{message}Both have the same names in another order: give a category the same `id` in "
        "both annotation files, as classes are numbered in the order of the ids."
    ), True
