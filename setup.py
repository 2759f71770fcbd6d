"""Installs the package `hybrid_cascade` from `projects/hybrid_cascade`, and compiles its operators.

Detectron2 and torch are expected in the environment already (neither has one name on the package
index that fits everybody), hence `pip install --no-build-isolation -e .`.

The operators are compiled for CUDA if a toolkit and a CUDA build of torch are there, else for the
CPU only. Where that fails, the installation goes on without them, and plain PyTorch serves.
`FORCE_CUDA=1` insists: CUDA is compiled, or the installation fails.
"""

import importlib.util
import os
import shutil
import sys
import warnings
from pathlib import Path

from setuptools import find_packages, setup

FORCE_CUDA = os.environ.get("FORCE_CUDA") == "1"
SOURCES = Path("projects/hybrid_cascade/layers/csrc")

# Four wheels provide cv2 and overwrite one another's files: ask for one only where there is none.
OPENCV = [] if importlib.util.find_spec("cv2") else ["opencv-python"]


def find_cuda_toolkit():
    """The folder of a CUDA toolkit with compiler and headers, or None. An `nvcc` on the path can be
    a script that lies elsewhere, so a folder counts only if both are there."""
    nvcc = shutil.which("nvcc")
    candidates = [
        os.environ.get("CUDA_HOME"),
        nvcc and Path(nvcc).parent.parent,
        nvcc and Path(nvcc).resolve().parent.parent,
        "/usr/local/cuda",
    ]
    for folder in filter(None, candidates):
        if (Path(folder) / "bin/nvcc").exists() and (Path(folder) / "include/cuda.h").exists():
            return str(folder)
    return None


def get_extensions():
    """Arguments of setup() that compile the operators; none where torch is not importable."""
    toolkit = find_cuda_toolkit()
    if toolkit:
        os.environ["CUDA_HOME"] = toolkit  # torch reads it when it is imported
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        message = (
            f"torch cannot be imported ({error}): the operators are not compiled. Install torch"
            " first, then install this package with `pip install --no-build-isolation -e .`"
        )
        if FORCE_CUDA:
            raise SystemExit(message) from error
        warnings.warn(message, stacklevel=2)
        return {}

    if torch.version.cuda and not torch.cuda.is_available():
        # No GPU to ask: code that any GPU from Turing on compiles for itself when it is loaded.
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "7.5+PTX")

    # Without it, torch's parallel loops are silently serial in code compiled outside of torch.
    openmp = ["-fopenmp"] if sys.platform == "linux" else []
    with_cuda = FORCE_CUDA or bool(toolkit and torch.version.cuda)
    cpu_sources = [str(path) for path in sorted(SOURCES.rglob("*.cpp"))]
    cuda_sources = [str(path) for path in sorted(SOURCES.rglob("*.cu"))]
    extension = (CUDAExtension if with_cuda else CppExtension)(
        "hybrid_cascade.layers._C",
        cpu_sources + cuda_sources if with_cuda else cpu_sources,
        depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
        define_macros=[("WITH_CUDA", None)] if with_cuda else [],
        extra_compile_args={"cxx": ["-O3", *openmp], "nvcc": ["-O3"]},
        extra_link_args=openmp,
        optional=not FORCE_CUDA,  # setuptools then does without the file
    )

    class BuildOrDoWithout(BuildExtension):
        """Compiles for CUDA, else for the CPU, else not at all, unless CUDA is insisted on."""

        def build_extensions(self):
            try:
                return super().build_extensions()
            except Exception as error:  # compilers fail in many ways
                if FORCE_CUDA:
                    raise
                remaining = "trying the CPU alone" if extension.define_macros else "doing without"
                warnings.warn(f"the operators did not compile, {remaining}: {error}", stacklevel=2)
            if extension.define_macros:
                extension.sources, extension.define_macros = cpu_sources, []
                self.build_extensions()

    return {"ext_modules": [extension], "cmdclass": {"build_ext": BuildOrDoWithout}}


setup(
    name="hybrid_cascade",
    version="0.1.0",
    description="HTC, MNC, Cascade Mask R-CNN, SFPN and SSD for Detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "projects"},
    packages=find_packages("projects"),
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "fvcore",
        "iopath",
        "omegaconf>=2.1,<2.4",
        "pycocotools",
        "matplotlib",
        "numpy",
        "pillow",
        *OPENCV,
    ],
    extras_require={"sbd": ["scipy"]},
    **get_extensions(),
)
