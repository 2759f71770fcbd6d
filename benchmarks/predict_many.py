"""Predict on many images: what a killed process costs, and how much memory the number takes.

    python benchmarks/predict_many.py --weights output/quick_start/model_final.pth

One process predicts on a quarter of the images and then on all, and the peaks of its memory are
compared. Two processes predict on all images; one of them is killed with SIGKILL on its way, and
both are started again. What they write is compared with what the one process wrote.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from record import RESULTS, ROOT, write_record

CONFIG = ROOT / "configs" / "quick_start" / "htc_toy.py"
RESULT = "coco_results.json"


def draw_images(folder: Path, number: int) -> None:
    """Write images of noise with rectangles in it, 64 x 96 pixels each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(number):
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        for _ in range(3):
            x, y = rng.integers(0, (80, 50)).tolist()
            color = rng.integers(0, 256, 3).tolist()
            cv2.rectangle(image, (x, y), (x + 16, y + 14), color, thickness=-1)
        cv2.imwrite(str(folder / f"{index:06d}.png"), image)


def start(images: Path, output: Path, weights: str, rank: int = 0, number: int = 1):
    """Start one of some processes of tools/predict.py."""
    command = [sys.executable, str(ROOT / "tools" / "predict.py"), "--config-file", str(CONFIG)]
    command += ["--weights", weights, "--input", str(images), "--output", str(output)]
    command += ["--device", "cpu", "--score-thresh", "0.05", "--batch-size", "2"]
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(number)}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def peak_memory(images: Path, output: Path, weights: str) -> float:
    """Run one process to its end; return the peak of its memory in MB."""
    process = start(images, output, weights)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return usage.ru_maxrss / 1000


def num_done(output: Path) -> int:
    """Return how many lines the shards have."""
    return sum(path.read_bytes().count(b"\n") for path in (output / "shards").glob("*.jsonl"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="of configs/quick_start/htc_toy.py")
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--output", type=Path, default=RESULTS / "predict_many.json")
    args = parser.parse_args()
    weights = str(Path(args.weights).resolve())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        draw_images(folder / "images", args.images)
        draw_images(folder / "quarter", args.images // 4)
        memory = {
            args.images // 4: peak_memory(folder / "quarter", folder / "out_quarter", weights),
            args.images: peak_memory(folder / "images", folder / "out_one", weights),
        }
        output = folder / "out_two"
        processes = [start(folder / "images", output, weights, rank, 2) for rank in range(2)]
        while num_done(output) < args.images * random.uniform(0.3, 0.9):
            time.sleep(0.2)
        processes[1].send_signal(signal.SIGKILL)
        codes = [process.wait() for process in processes]
        done_before = num_done(output)
        assert codes == [0, -signal.SIGKILL] and not (output / RESULT).exists(), codes
        again = [start(folder / "images", output, weights, rank, 2) for rank in range(2)]
        assert [process.wait() for process in again] == [0, 0]
        is_equal = (output / RESULT).read_bytes() == (folder / "out_one" / RESULT).read_bytes()
        figures = {
            "images": args.images,
            "peak memory in MB by images": {k: round(v) for k, v in memory.items()},
            "lines before the restart": done_before,
            "lines at the end": num_done(output),
            "bytes of results": (output / RESULT).stat().st_size,
            "results are equal": is_equal,
        }
    print(figures)
    write_record(args.output, figures)
    assert is_equal


if __name__ == "__main__":
    main()
