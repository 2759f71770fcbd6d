"""How much two trainings on the same cores slow each other down, with several settings of OpenMP.

    python benchmarks/two_at_once.py

Trains the toy HTC alone, and two of it at once. The speed of each is that of its iterations, so the
start of the processes does not count. Ideally each of two has half of its speed alone. A
measurement during which other processes took more than 5 % of the cores is made again, on Linux.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import RESULTS, ROOT, write_record

SETTINGS = {
    "OpenMP's default": {"GOMP_SPINCOUNT": "300000"},
    "train_net.py": {},
    "passive waiting": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OPTIONS = (
    "train.eval_period=0 train.num_panels=0 train.report.enabled=False train.log_period=1 "
    "train.device=cpu train.checkpointer.period=100000 train.max_iter=100000"
)


def start(folder: Path, variables: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file"]
    command += [str(ROOT / "configs" / "quick_start" / "htc_toy.py"), *OPTIONS.split()]
    command += [f"train.output_dir={folder}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    with open(f"{folder}.log", "w") as log:
        return subprocess.Popen(command, env={**environment, **variables}, stdout=log, stderr=log)


def seconds_of(folder: Path) -> list[float]:
    """Return the seconds of each iteration so far: medians of up to 20, as Detectron2 logs them."""
    path = folder / "metrics.json"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(x) for x in text.splitlines(keepends=True) if x.endswith("\n")]
    return [line["time"] for line in lines if "time" in line]


def measure(number: int, iterations: int, variables: dict[str, str]) -> list[float]:
    """Return the median seconds of an iteration of each of some trainings at once.

    They train until all have done so many iterations, or five where these take minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(i) for i in range(number)]
        processes = [start(f, variables) for f in folders]
        end = time.monotonic() + 60
        try:
            while (done := min(len(seconds_of(f)) for f in folders)) < iterations:
                if done >= 5 and time.monotonic() > end:
                    break
                if any(process.poll() is not None for process in processes):
                    sys.exit(f"a training ended: {Path(f'{folders[0]}.log').read_text()}")
                time.sleep(0.5)
            return [round(seconds_of(f)[-1], 4) for f in folders]
        finally:
            for process in processes:
                process.kill()
                process.wait()


def seconds_of_others() -> float:
    """Return how long the cores have worked for other processes than this one and its children."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    idle, waiting = ticks[3:5]
    ours = [resource.getrusage(x) for x in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    all_processes = (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
    return all_processes - sum(x.ru_utime + x.ru_stime for x in ours)


def measure_undisturbed(number: int, iterations: int, variables: dict[str, str]) -> list[float]:
    """Return the measurement, of up to three, that other processes disturbed least."""
    measurements = []
    while len(measurements) < 3 and not (measurements and min(measurements)[0] < 0.05):
        start, others = time.monotonic(), seconds_of_others()
        seconds = measure(number, iterations, variables)
        share = (seconds_of_others() - others) / (time.monotonic() - start) / os.cpu_count()
        measurements.append((share, seconds))
    share, seconds = min(measurements)
    print(f"{variables}, {number} at once: {seconds}; others took {share:.0%}", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=22)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "two_at_once.json")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.rounds):
        for name, variables in SETTINGS.items():
            row = found.setdefault(name, {"alone": [], "two": []})
            for number, key in ((1, "alone"), (2, "two"), (1, "alone")):
                row[key] += measure_undisturbed(number, args.iterations, variables)
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
