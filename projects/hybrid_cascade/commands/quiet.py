"""Leave out warnings of other packages that a user of a command can do nothing about."""

import logging
import warnings


def leave_out_known_warnings() -> None:
    """Leave out two warnings of torch, in this process: each is about code of Detectron2.

    Its anchor generator calls `torch.meshgrid` without `indexing`, and it asks whether it is traced
    by a function that torch.fx has renamed.
    """
    warnings.filterwarnings(
        "ignore", "torch.meshgrid: in an upcoming release", UserWarning, "torch.functional"
    )
    logging.getLogger("torch.fx._symbolic_trace").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("is_fx_tracing will return true")
