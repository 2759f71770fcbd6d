import importlib.machinery
import shutil

import pytest
import torch

from hybrid_cascade.layers.extension import compiled_devices, compiled_reason, load_library


def test_a_folder_without_a_library_serves_no_device(tmp_path):
    assert load_library(tmp_path) == (frozenset(), "it is not compiled")


def test_a_library_that_cannot_be_loaded_serves_no_device_and_is_named(tmp_path):
    name = f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    (tmp_path / name).write_text("compiled for another PyTorch")
    devices, reason = load_library(tmp_path)
    assert devices == frozenset()
    assert reason.startswith(f"{name} cannot be loaded: ")


@pytest.mark.skipif(
    not (shutil.which("nvcc") and torch.version.cuda), reason="needs nvcc and a CUDA build of torch"
)
def test_where_nvcc_is_present_the_cuda_kernels_are_compiled():
    assert "cuda" in compiled_devices, compiled_reason
