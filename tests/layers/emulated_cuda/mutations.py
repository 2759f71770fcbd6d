"""Break the CUDA kernels at each barrier and each check of bounds, and see the tests fail.

    python -m tests.layers.emulated_cuda.mutations

Each break is compiled into a library of its own, half a minute each. Exit code 1: with one of them,
the tests pass.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import CSRC, SOURCES_KEY

BARRIERS = r"__syncthreads\(\);|total\[i\] \+= __shfl_down_sync\([^;]*;"
# What is replaced by what, wherever it stands.
CHECKS = {
    "roi_warp/cuda_tile.cuh": {
        "y >= 0 && ": "",
        " && y < height": "",
        " && x >= 0": "",
        " && x < width": "",
        "min(tiling.rows, warp.output_rows() - first_row)": "tiling.rows",
        "min(tiling.columns, warp.output_columns() - first_column)": "tiling.columns",
        "lane < channels; lane +=": "lane < kLanes; lane +=",
        "cell < rows * columns": "cell <= rows * columns",
    },
    "roi_warp/roi_warp_cuda.cu": {
        "threadIdx.x < channels ? ": "true ? ",
        "input && lane < channels ? ": "input ? ",
        "input_grad && lane < channels ? ": "input_grad ? ",
        "x < 0 || ": "",
        "|| x >= warp.width": "",
        "pixel_row >= 0 && ": "",
        " && pixel_row < warp.height": "",
        "x.low != kOutside && ": "",
        " && y.low != kOutside": "",
        "lane < channels && tile.indices": "tile.indices",
        "row < tile.rows; row": "row <= tile.rows; row",
        'CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");': "",
    },
}


def breaks() -> Iterator[tuple[str, str, str]]:
    """Yield a file, what is broken there, and the broken source."""
    for path in (*CSRC.rglob("*.cu"), *CSRC.rglob("*.cuh")):
        name, source = str(path.relative_to(CSRC)), path.read_text()
        for match in re.finditer(BARRIERS, source):
            line = source.count("\n", 0, match.start()) + 1
            yield name, f"line {line}: {match[0]}", source[: match.start()] + source[match.end() :]
        for old, new in CHECKS.get(name, {}).items():
            for match in re.finditer(re.escape(old), source):
                line = source.count("\n", 0, match.start()) + 1
                broken = source[: match.start()] + new + source[match.end() :]
                yield name, f"line {line}: {old} -> {new}", broken
            assert old in source, f"{name} has no {old!r}: correct the list"


def main() -> int:
    survived = 0
    for name, what, source in breaks():
        with tempfile.TemporaryDirectory() as folder:
            csrc = Path(folder) / "csrc"
            shutil.copytree(CSRC, csrc)
            (csrc / name).write_text(source)
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-k",
                "emulated",
                "-p",
                "no:xdist",
            ]
            command += [str(p) for p in sorted(Path(__file__).parents[1].glob("test_*.py"))]
            environment = {**os.environ, SOURCES_KEY: str(csrc)}
            result = subprocess.run(command, env=environment, capture_output=True, text=True)
        # A crash of the process is a failure, too.
        is_found = result.returncode not in (0, 5) and "error: " not in result.stderr
        survived += not is_found
        print(f"{'found   ' if is_found else 'SURVIVED'} {name} {what}", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
