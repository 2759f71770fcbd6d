"""RoI warp in its two implementations."""

import sys

import pytest


@pytest.fixture(params=["compiled", "plain_pytorch"])
def implementation(request, monkeypatch):
    """Run a test on the compiled operator and on plain PyTorch in its place."""
    module = sys.modules["hybrid_cascade.layers.roi_warp"]  # layers.roi_warp is the function
    if request.param == "plain_pytorch":
        monkeypatch.setattr(module, "compiled_devices", frozenset())
        monkeypatch.setattr(module, "_warn_of_reference", lambda device: None)
    elif not module.compiled_devices:
        pytest.skip(module.compiled_reason)
    return request.param
