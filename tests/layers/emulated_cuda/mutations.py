"""Break the CUDA kernels at each barrier and each check of bounds, and see the tests fail.

    python -m tests.layers.emulated_cuda.mutations --operators pyramid_roi_align

Each break is compiled into a library of its own, with ASan and UBSan, which see what reads or adds
zero to the memory of others, and takes half a minute. Exit code 1: with one of them, the tests
pass.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.sanitize import sanitized_environment

from . import CSRC, OPERATORS, SOURCES_KEY

BARRIERS = r"__syncthreads\(\);|total\[i\] \+= __shfl_down_sync\([^;]*;"
# What is replaced by what, wherever it stands.
CHECKS = {
    "roi_warp/cuda_pixels.cuh": {
        "place % alignof(Quad<scalar_t>) ? ": "false ? ",
        "data == nullptr || ": "",
        "y < 0 || ": "",
        " || y >= height": "",
    },
    "roi_warp/cuda_columns.cuh": {
        "x >= 0 && ": "",
        " && x < width - 1": "",
        "x < width - 1": "x < width",
        " && width > 0": "",
        "else if (x >= 0)": "else",
    },
    "roi_warp/cuda_tile.cuh": {
        "min(tiling.rows, warp.output_rows() - first_row)": "tiling.rows",
        "min(tiling.columns, warp.output_columns() - first_column)": "tiling.columns",
        "cell < rows * columns": "cell <= rows * columns",
        "(lane + 1) * kPerLane <= channels": "lane < kLanes",
        "lane * kPerLane + part < channels": "true",
    },
    "roi_warp/roi_warp_forward_cuda.cu": {
        "lane_channel < warp.channels ? ": "true ? ",
        "if (exists)": "",
        "row < tile.rows; row": "row <= tile.rows; row",
        'CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");': "",
    },
    "roi_warp/roi_warp_backward_cuda.cu": {
        "has_channels = lane_channel < warp.channels": "has_channels = true",
        "data && y >= 0": "y >= 0",
        "y >= 0 && ": "",
        " && y < height": "",
        "if (row) {": "{",
        "x < 0 || ": "",
        " || x >= columns.width": "",
        "== kOutside ? kNever": "== kOutside ? 0",
        "if (sample.low == kOutside)": "if (false)",
        "exists ? static_cast": "true ? static_cast",
        "exists ? *address": "true ? *address",
        "row < tile.rows; row": "row <= tile.rows; row",
        'CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");': "",
    },
    "pyramid_roi_align/cuda_samples.cuh": {
        "position < 0 ? 0 : ": "",
        "position > T(size - 1) ? size - 1 : ": "",
        "reach < T(size) ? static_cast<int>(reach) : size": "static_cast<int>(reach)",
        " + T(3)": "",
        " + 2 - low": " + 1 - low",
        ", Line<T>::kWindow);": ", Line<T>::kWindow + 1);",
        "at < T(-1) || ": "",
        " || at > T(size)": "",
        "at < 0 ? T(0) : ": "",
        "at > T(size - 1) ? T(size - 1) : ": "",
        "index >= 0 && ": "",
        " && index < length": "",
        "index >= -1 && ": "",
        " && index + 1 < length": "",
        "index < 0 ? 0 : ": "",
        "index > T(count) ? count : ": "",
    },
    "pyramid_roi_align/pyramid_roi_align_cuda.cu": {
        "threadIdx.x * kChannels >= channels": "false",
        "level < 0 || ": "",
        " || level >= call.num_maps": "",
        "min(call.tile_rows, call.rows - first_row)": "call.tile_rows",
        "min(call.tile_columns, call.columns - first_column)": "call.tile_columns",
        "channel < channels; channel +=": "channel < kChannels * kLanes; channel +=",
        "cell < rows * columns": "cell <= rows * columns",
        "cell < tile.rows * tile.columns": "cell <= tile.rows * tile.columns",
        "line < rows + columns": "line <= rows + columns",
        "box[0] >= 0 && ": "",
        "box[0] < call.images && ": "",
        "map.size(1) % channels == 0 && ": "",
        " && address % (channels * map.element_size()) == 0": "",
    },
}


def breaks(operator: str) -> Iterator[tuple[str, str, str]]:
    """Yield a file of an operator, what is broken there, and the broken source."""
    for path in sorted((CSRC / operator).glob("*.cu*")):
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


def is_found(name: str, source: str) -> bool:
    """Tell whether the operator's tests fail, or their process crashes, with a broken source."""
    with tempfile.TemporaryDirectory() as folder:
        csrc, operator = Path(folder) / "csrc", Path(name).parent.name
        others = set(OPERATORS) - {operator}
        shutil.copytree(CSRC, csrc, ignore=shutil.ignore_patterns(*others))
        (csrc / name).write_text(source)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "emulated"]
        tests = Path(__file__).parents[1].glob(f"test_{operator}*.py")
        command += [str(path) for path in sorted(tests)]
        environment = {**sanitized_environment(), SOURCES_KEY: str(csrc), "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "CalledProcessError" not in result.stdout, f"{name} does not compile: {result.stdout}"
    return result.returncode not in (0, 5)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at a time")
    args = parser.parse_args()
    for operator in args.operators:
        path = next((CSRC / operator).glob("*.cu"))
        if is_found(str(path.relative_to(CSRC)), path.read_text()):
            sys.exit(f"The tests of {operator} fail, although nothing is broken")
    cases = [case for operator in args.operators for case in breaks(operator)]
    survived = 0
    with ThreadPoolExecutor(args.workers) as pool:
        results = [pool.submit(is_found, name, source) for name, _, source in cases]
        for (name, what, _), found in zip(cases, results, strict=True):
            survived += not found.result()
            print(f"{'found   ' if found.result() else 'SURVIVED'} {name} {what}", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
