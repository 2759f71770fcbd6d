"""Compile the CUDA sources of the operators for the CPU, and let the operators run them there.

The sources are compiled as they are, except for what g++ can't read: the launch of a kernel and the
declarations of shared memory. include/emulated_cuda.h has the rest of CUDA that they use.
"""

import hashlib
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths
from torch.utils.file_baton import FileBaton

HERE = Path(__file__).parent
# Environment variables: a folder of sources other than CSRC, and further flags for the compiler.
SOURCES_KEY, FLAGS_KEY = "EMULATED_CUDA_SOURCES", "EMULATED_CUDA_FLAGS"
CSRC = HERE.parents[2] / "projects" / "hybrid_cascade" / "layers" / "csrc"
CSRC = Path(os.environ.get(SOURCES_KEY, CSRC))
BUILD = CSRC.parent / "build" if SOURCES_KEY in os.environ else HERE.parents[2] / "build"
BUILD = BUILD / "emulated_cuda"
OPERATORS = tuple(sorted({path.parent.name for path in CSRC.glob("*/*.cu")}))
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
TRANSLATIONS = {
    # The most blocks along y and z: here so few that a block has to take several tiles.
    r"constexpr int64_t most = 65535;": "constexpr int64_t most = 2;",
    r"(\w+(?:<[\w, ]+>)?)<<<(.*?)>>>\(": r"emulated_cuda::launch(\1, \2)(",
    r"extern __shared__ .*?unsigned char (\w+)\[\];": (
        r"unsigned char* \1 = emulated_cuda::dynamic_shared_memory();"
    ),
    r"__shared__ (\w+) (\w+)((?:\[[^\]]+\])+);": (
        r"auto& \2 = emulated_cuda::static_shared_memory<\1\3, __LINE__>();"
    ),
}


def load() -> None:
    """Load the operators `emulated_cuda::*`; build them first if the sources are new."""
    torch.ops.load_library(build())


def build() -> Path:
    """Return the library of the operators; compile it first if the sources are new.

    Raises:
        FileNotFoundError: if there is no compiler.
        subprocess.CalledProcessError: if the compiler fails; it says why.
    """
    if COMPILER is None:
        raise FileNotFoundError("there is no C++ compiler (g++, or what CXX names)")
    sources = {path: translate(path.read_text()) for path in sorted(CSRC.rglob("*.cu"))}
    everything = [*CSRC.rglob("*.*"), *HERE.rglob("*.h")]
    digest = hashlib.sha256(f"{torch.__version__} {os.environ.get(FLAGS_KEY)}".encode())
    for path in sorted(p for p in everything if p.is_file()):
        digest.update(path.read_bytes())
    library = BUILD / f"{digest.hexdigest()[:16]}.so"
    BUILD.mkdir(parents=True, exist_ok=True)
    baton = FileBaton(str(library.with_suffix(".lock")))
    if baton.try_acquire():
        try:
            if not library.exists():
                _compile(sources, library)
        finally:
            baton.release()
    else:
        baton.wait()  # another process compiles it
    return library


def translate(source: str) -> str:
    """Return a CUDA source as C++ for include/emulated_cuda.h."""
    for pattern, replacement in TRANSLATIONS.items():
        source = re.sub(pattern, replacement, source, flags=re.DOTALL)
    return source


def _compile(sources: dict[Path, str], library: Path) -> None:
    # In one file, since the compiler spends most of its time on PyTorch's headers.
    parts = ["#include <emulated_cuda.h>"]
    for path in (CSRC / "library.cpp", *(CSRC / name / f"{name}.cpp" for name in OPERATORS)):
        parts.append(f'#include "{path}"')
    parts += [f'#line 1 "{path}"\n{text}' for path, text in sources.items()]
    unit = library.with_suffix(".cpp")
    unit.write_text("\n".join(parts))
    # In place of the kernels for CPUs, the operators of the namespace `emulated_cuda` get these.
    names = {"hybrid_cascade": "emulated_cuda"}
    names |= {f"{step}_cpu": f"{step}_cuda" for step in ("forward", "backward")}
    command = [COMPILER, "-shared", "-fPIC", "-std=c++20", "-O1", "-w"]
    command += os.environ.get(FLAGS_KEY, "").split()
    command += [f"-D{old}={new}" for old, new in names.items()]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    command += [f"-I{HERE / 'include'}", *(f"-I{CSRC / name}" for name in OPERATORS)]
    command += [f"-isystem{path}" for path in include_paths()]
    command += [str(unit), *(f"-L{path}" for path in library_paths())]
    part = library.with_suffix(".part")
    command += ["-lc10", "-ltorch", "-ltorch_cpu", "-o", str(part)]
    # What is preloaded, a sanitizer, is for the tests, not for the compiler.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    subprocess.run(command, check=True, env=environment)
    part.rename(library)


@contextmanager
def in_place_of_cpu_kernels() -> Iterator[None]:
    """Let the operators run the emulated CUDA kernels on tensors on the CPU."""
    library = torch.library.Library("hybrid_cascade", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*previously registered kernel")
            for operator in (f"{name}{end}" for name in OPERATORS for end in ("", "_backward")):
                kernel = getattr(torch.ops.emulated_cuda, operator).default
                library.impl(operator, kernel, "CPU", allow_override=True)
        yield
    finally:
        library._destroy()
