import logging
import warnings

import pytest
import torch

from hybrid_cascade.engine import harmless_warnings_ignored

MESHGRID = "torch.meshgrid: in an upcoming release, it will be required to pass the argument."


def test_warnings_of_meshgrid_and_fx_are_left_out_and_others_are_not(caplog):
    def warn():
        warnings.warn_explicit(
            MESHGRID, UserWarning, torch.functional.__file__, 1, "torch.functional"
        )
        logger.warning("is_fx_tracing will return true for both kinds")

    logger = logging.getLogger("torch.fx._symbolic_trace")
    with pytest.warns(UserWarning, match="another") as caught, harmless_warnings_ignored():
        warn()
        logger.warning("another of fx")
        warnings.warn("another", UserWarning, stacklevel=1)
    assert len(caught) == 1
    assert caplog.messages == ["another of fx"]
    with pytest.warns(UserWarning, match="meshgrid"):
        warn()
    assert len(caplog.messages) == 2


def test_the_filters_are_gone_after_an_error():
    filters = list(warnings.filters)
    with pytest.raises(RuntimeError), harmless_warnings_ignored():
        raise RuntimeError
    assert warnings.filters == filters
    assert not logging.getLogger("torch.fx._symbolic_trace").filters
