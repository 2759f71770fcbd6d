"""RoI warp in its implementations."""

import sys

import pytest

from . import emulated_cuda


@pytest.fixture(scope="session")
def emulation():
    """The CUDA kernels, compiled for the CPU."""
    if emulated_cuda.COMPILER is None:
        pytest.skip("there is no C++ compiler (g++)")
    emulated_cuda.load()
    return emulated_cuda.in_place_of_cpu_kernels


@pytest.fixture
def emulated_cuda_kernels(emulation):
    """Let operators run the emulated CUDA kernels on tensors on the CPU."""
    with emulation():
        yield


@pytest.fixture(params=["compiled", "emulated_cuda"])
def kernels(request):
    """Run a test on the kernels for CPUs, and on those for CUDA, emulated."""
    if request.param == "emulated_cuda":
        request.getfixturevalue("emulated_cuda_kernels")
    return request.param


@pytest.fixture(params=["compiled", "plain_pytorch", "emulated_cuda"])
def implementation(request, monkeypatch):
    """Run a test on the compiled operator, on plain PyTorch, and on the CUDA kernels, emulated."""
    module = sys.modules["hybrid_cascade.layers.roi_warp"]  # layers.roi_warp is the function
    if request.param == "plain_pytorch":
        monkeypatch.setattr(module, "compiled_devices", frozenset())
        monkeypatch.setattr(module, "_warn_of_reference", lambda device: None)
    elif not module.compiled_devices:
        pytest.skip(module.compiled_reason)
    if request.param == "emulated_cuda":
        request.getfixturevalue("emulated_cuda_kernels")
    return request.param
