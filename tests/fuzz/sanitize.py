"""Run the operators' cases on a library compiled with ASan and UBSan.

    python -m tests.fuzz.sanitize --seed 0 --cases 300

The C++ sources for CPUs are compiled into a temporary folder; what is installed stays. Those for
CUDA are compiled as tests/layers/emulated_cuda does. A fault ends the process of its case, which
counts as a crash, and the sanitizer's report is printed.
"""

import argparse
import importlib.machinery
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

from tests.layers.emulated_cuda import FLAGS_KEY

ROOT = Path(__file__).parent.parent.parent
COMPILER = os.environ.get("CXX", "g++")
FLAGS = [
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize=vptr",  # it needs type information that PyTorch's libraries lack
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-g",
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        projects = Path(folder) / "projects"
        ignored = shutil.ignore_patterns("_C*", "__pycache__")
        shutil.copytree(ROOT / "projects", projects, ignore=ignored)
        layers = projects / "hybrid_cascade" / "layers"
        _compile(layers / "csrc", layers / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}")
        environment = {**sanitized_environment(), "PYTHONPATH": str(projects)}
        command = [sys.executable, "-m", "tests.fuzz", "--kinds", "operators", "cuda_operators"]
        command += ["--seed", str(args.seed), "--cases", str(args.cases), "--workers", "1"]
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


def sanitized_environment() -> dict[str, str]:
    """Return the environment of a process in which sanitizers watch the emulated CUDA kernels."""
    # The threads of a kernel have stacks of their own, which ASan does not know of. It watches the
    # heap, where tensors and shared memory are.
    flags = [*FLAGS, "--param=asan-stack=0"]
    return {
        **os.environ,
        FLAGS_KEY: " ".join(flags),
        # Python keeps memory until its end, which would count as leaks. The margins of a tensor
        # are as wide as a pixel of many channels.
        "ASAN_OPTIONS": "detect_leaks=0:redzone=1024",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        # Python itself is compiled without the sanitizers, so they have to be loaded first.
        "LD_PRELOAD": " ".join(map(_path_of, ("libasan.so", "libubsan.so", "libstdc++.so"))),
    }


def _compile(sources: Path, library: Path) -> None:
    command = [COMPILER, "-shared", "-fPIC", "-std=c++17", "-O1", *FLAGS, "-fopenmp", "-w"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    command += [f"-isystem{path}" for path in include_paths()]
    command += [str(path) for path in sorted(sources.rglob("*.cpp"))]
    command += [f"-L{path}" for path in library_paths()]
    command += ["-lc10", "-ltorch", "-ltorch_cpu", "-o", str(library)]
    subprocess.run(command, check=True)


def _path_of(library: str) -> str:
    command = [COMPILER, f"-print-file-name={library}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
