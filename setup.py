"""Install the package `hybrid_cascade` from `projects/hybrid_cascade`, and compile its operators.

Detectron2 and torch must be installed already, because no single name on the package index fits
everybody. Hence `pip install --no-build-isolation -e .`.

The operators are compiled for CUDA if there are a CUDA toolkit and a CUDA build of torch, else for
the CPU only. If that fails, the package is installed without them and uses plain PyTorch instead.
With `FORCE_CUDA=1`, the installation fails if CUDA cannot be compiled.
"""

import os
import re
import shutil
import sys
import warnings
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FORCE_CUDA = os.environ.get("FORCE_CUDA") == "1"
SOURCES = Path("projects/hybrid_cascade/layers/csrc")


class BuildWithConfigs(build_py):
    """Copy configs/ into the package: where there is no clone, `model_zoo` finds them there."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "hybrid_cascade", "configs")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree("configs", target, ignore=shutil.ignore_patterns("__pycache__"))


def read_version():
    text = Path("projects/hybrid_cascade/version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def read_description():
    """Return README.md without pictures and links to files, which only the repository has."""
    text = Path("README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", text)
    return re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


def find_cuda_toolkit():
    """Return the folder of a CUDA toolkit that has both compiler and headers, or None.

    An `nvcc` on the path may be a script outside of the toolkit, hence the look at both.
    """
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
    """Return the arguments of setup() that compile the operators: none if torch is missing."""
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
        # No GPU tells its architecture: compile PTX, which every GPU from Turing on can translate.
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "7.5+PTX")

    # Without OpenMP, torch's parallel loops silently become serial in code outside of torch.
    openmp = ["-fopenmp"] if sys.platform == "linux" else []
    with_cuda = FORCE_CUDA or bool(toolkit and torch.version.cuda)
    cpu_sources = [str(path) for path in sorted(SOURCES.rglob("*.cpp"))]
    cuda_sources = [str(path) for path in sorted(SOURCES.rglob("*.cu"))]
    headers = [str(path) for path in sorted([*SOURCES.rglob("*.h"), *SOURCES.rglob("*.cuh")])]
    extension = (CUDAExtension if with_cuda else CppExtension)(
        "hybrid_cascade.layers._C",
        cpu_sources + cuda_sources if with_cuda else cpu_sources,
        depends=headers,
        define_macros=[("WITH_CUDA", None)] if with_cuda else [],
        extra_compile_args={"cxx": ["-O3", *openmp], "nvcc": ["-O3"]},
        extra_link_args=openmp,
        optional=not FORCE_CUDA,  # without the library, the installation still succeeds
    )

    class BuildOrDoWithout(BuildExtension):
        """Compile for CUDA, or else for the CPU, or else not at all; with FORCE_CUDA, or fail."""

        def build_extensions(self):
            try:
                return super().build_extensions()
            except Exception as error:  # compilers fail in many ways
                if FORCE_CUDA:
                    raise
                remaining = "trying the CPU alone" if extension.define_macros else "going without"
                warnings.warn(f"the operators did not compile, {remaining}: {error}", stacklevel=2)
            if extension.define_macros:
                extension.sources, extension.define_macros = cpu_sources, []
                self.build_extensions()

    return {"ext_modules": [extension], "cmdclass": {"build_ext": BuildOrDoWithout}}


extensions = get_extensions()
setup(
    name="hybrid_cascade",
    version=read_version(),
    description="HTC, MNC, Cascade Mask R-CNN, SFPN and SSD for Detectron2",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C++",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords="instance segmentation, object detection, detectron2, HTC, Cascade R-CNN, MNC",
    python_requires=">=3.10",
    package_dir={"": "projects"},
    packages=find_packages("projects"),
    package_data={
        "": ["*.html", "*.css", "*.js", "py.typed"],
        "hybrid_cascade.report": ["templates/*"],
    },
    entry_points={"console_scripts": ["hybrid-cascade = hybrid_cascade.commands.main:main"]},
    # The same whatever the building machine has. README.md says how to do with another OpenCV.
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "fvcore",
        "iopath",
        "omegaconf>=2.1,<2.4",
        "pycocotools",
        "hotcoco>=1.3,<2",
        "matplotlib",
        "numpy",
        "pillow",
        "opencv-python",
        "tqdm",
        "setuptools<82",  # the last with pkg_resources, which Detectron2's model_zoo imports
    ],
    extras_require={
        "caffe": ["h5py"],  # MNC's published weights
        "onnx": ["onnx", "onnxruntime"],
        "sbd": ["scipy"],
        "timm": ["timm"],
        "wandb": ["wandb"],
    },
    cmdclass={"build_py": BuildWithConfigs, **extensions.pop("cmdclass", {})},
    **extensions,
)
