"""Leave out warnings that the users of a command can do nothing about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def harmless_warnings_ignored() -> Iterator[None]:
    """Leave out what torch says of Detectron2's code at each first inference.

    That is: the anchor generator calls `meshgrid` without naming the order of its results (the
    default is the one that it means), and the pooler asks torch.fx whether it is tracing (it is not
    called under torch.export, where the answer would be another one).

    It may decorate a function, too.
    """
    logger = logging.getLogger("torch.fx._symbolic_trace")

    def is_of_interest(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("is_fx_tracing will return true for both")

    logger.addFilter(is_of_interest)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "torch.meshgrid: in an upcoming release", UserWarning, "torch.functional"
            )
            yield
    finally:
        logger.removeFilter(is_of_interest)
