"""Run the operators' cases on a library compiled with ASan and UBSan.

    python -m tests.fuzz.sanitize --seed 0 --cases 300

The C++ sources for CPUs are compiled into a temporary folder; what is installed stays. A fault
ends the process of its case, which counts as a crash, and the sanitizer's report is printed.
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

ROOT = Path(__file__).parent.parent.parent
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"


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
        environment = {
            **os.environ,
            "PYTHONPATH": str(projects),
            # Python keeps memory until its end, which would count as leaks.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            # Python itself is compiled without the sanitizers, so they have to be loaded first.
            "LD_PRELOAD": " ".join(map(_path_of, ("libasan.so", "libubsan.so", "libstdc++.so"))),
        }
        numbers = ["--seed", str(args.seed), "--cases", str(args.cases), "--workers", "1"]
        command = [sys.executable, "-m", "tests.fuzz", "--kinds", "operators", *numbers]
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


def _compile(sources: Path, library: Path) -> None:
    command = [os.environ.get("CXX", "g++"), "-shared", "-fPIC", "-std=c++17", "-O1", "-g"]
    # The vptr check needs type information that PyTorch's libraries lack.
    command += [SANITIZERS, "-fno-sanitize=vptr", "-fno-sanitize-recover=all"]
    command += ["-fno-omit-frame-pointer", "-fopenmp", "-w"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    command += [f"-isystem{path}" for path in include_paths()]
    command += [str(path) for path in sorted(sources.rglob("*.cpp"))]
    command += [f"-L{path}" for path in library_paths()]
    command += ["-lc10", "-ltorch", "-ltorch_cpu", "-o", str(library)]
    subprocess.run(command, check=True)


def _path_of(library: str) -> str:
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={library}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
