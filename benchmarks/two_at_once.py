"""How much two trainings on the same cores slow each other down, with several settings of OpenMP.

    python benchmarks/two_at_once.py

Trains the toy HTC alone, and two of it at once. The speed of each is that of its iterations, so the
start of the processes does not count. Ideally each of two has half of its speed alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from record import RESULTS, ROOT, write_record

SETTINGS = {
    "active waiting": {"OMP_WAIT_POLICY": "active"},
    "OpenMP's default": {},
    "passive waiting": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OPTIONS = (
    "train.eval_period=0 train.num_panels=0 train.report.enabled=False train.log_period=1 "
    "train.device=cpu train.checkpointer.period=100000"
)


def start(folder: Path, iterations: int, variables: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file"]
    command += [str(ROOT / "configs" / "quick_start" / "htc_toy.py"), *OPTIONS.split()]
    command += [f"train.output_dir={folder}", f"train.max_iter={iterations}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    with open(f"{folder}.log", "w") as log:
        return subprocess.Popen(command, env={**environment, **variables}, stdout=log, stderr=log)


def seconds_of(folder: Path) -> float:
    """Return the median seconds of an iteration, without the first and the last ones."""
    lines = [json.loads(x) for x in (folder / "metrics.json").read_text().splitlines()]
    times = [line["time"] for line in lines if "time" in line]
    return statistics.median(times[len(times) // 4 : -len(times) // 4])


def measure(number: int, iterations: int, variables: dict[str, str]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(i) for i in range(number)]
        processes = [start(f, iterations, variables) for f in folders]
        assert all(process.wait() == 0 for process in processes)
        return [round(seconds_of(f), 4) for f in folders]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "two_at_once.json")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.rounds):
        for name, variables in SETTINGS.items():
            row = found.setdefault(name, {"alone": [], "two": []})
            row["alone"] += measure(1, args.iterations, variables)
            row["two"] += measure(2, args.iterations, variables)
    figures = {}
    fastest = statistics.median(found["OpenMP's default"]["alone"])
    for name, row in found.items():
        alone, two = (statistics.median(row[key]) for key in ("alone", "two"))
        print(f"{name}: alone {alone:.3f} s, each of two {two:.3f} s: {alone / two:.2f}")
        figures[name] = {
            "seconds alone": row["alone"],
            "seconds of each of two": row["two"],
            "speed of each of two by alone": round(alone / two, 3),
            "speed alone by OpenMP's default": round(fastest / alone, 3),
        }
    write_record(args.output, figures)


if __name__ == "__main__":
    main()
