"""A training goes on without images that can't be read any more."""

import logging
from collections.abc import Callable
from hashlib import blake2b
from multiprocessing import get_context

from ..checks import READ_ERRORS, DatasetError

logger = logging.getLogger(__name__)


class SkipUnreadable:
    """A mapper that skips images whose files can't be read, up to a number of them.

    Detectron2's data loader takes another image of the dataset in place of one that is skipped.
    The workers of a data loader count together; each file counts, and is logged, once.
    """

    def __init__(self, mapper: Callable[[dict], dict], max_files: int = 10, key: str = "max_files"):
        """
        Args:
            mapper: a `DatasetMapper`.
            max_files: the most files that are skipped; 0: the first one is an error.
            key: what to set for another limit, for messages.
        """
        self.mapper = mapper
        self.max_files = max_files
        self.key = key
        # Hashes of the names of the files, then zeros; shared with the workers of a data loader.
        self._skipped = get_context("fork").Array("Q", max_files + 1)

    def __call__(self, dataset_dict: dict) -> dict | None:
        """Map an image.

        Returns:
            What the mapper returns; None if the image, or its label map, can't be read.

        Raises:
            DatasetError: if there are more such files than `max_files`.
        """
        try:
            return self.mapper(dataset_dict)
        except READ_ERRORS as error:
            self._count(dataset_dict, error)
            return None

    @property
    def num_skipped(self) -> int:
        """Return how many files were skipped so far."""
        return sum(map(bool, self._skipped))

    def _count(self, dataset_dict: dict, error: Exception) -> None:
        keys = ("file_name", "sem_seg_file_name")
        names = " or ".join(f"'{dataset_dict[key]}'" for key in keys if key in dataset_dict)
        mark = int.from_bytes(blake2b(names.encode(), digest_size=8).digest(), "big") or 1
        with self._skipped.get_lock():
            known = [x for x in self._skipped if x]
            if mark in known:
                return
            if len(known) <= self.max_files:
                self._skipped[len(known)] = mark
        if len(known) >= self.max_files:
            raise DatasetError(
                f"{names} can't be read ({error}), after {self.max_files} other files that were "
                f"skipped. See whether the disk is there, replace the files, or raise {self.key}."
            ) from error
        logger.warning(
            "%s can't be read (%s): skipped. These are %d of at most %d files (%s).",
            *(names, error, len(known) + 1, self.max_files, self.key),
        )
