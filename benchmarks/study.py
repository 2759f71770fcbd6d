#!/usr/bin/env python
"""Does each idea earn its cost? Rows and seeds on the toy scenes.

    benchmarks/study.py run --iterations 600 --seeds 1 2 3 4
    benchmarks/study.py time --iterations 600
    benchmarks/study.py table --iterations 600

`run` pretrains the backbone (study_pretraining.py), then takes one job after the other, a row and a
seed each, and skips those that have a record in benchmarks/results/study. Stop it at any time: the
job goes on from its last checkpoint when `run` is called again. Several of them share the jobs; on
a CPU, two with one thread each are faster than one with two. `time` measures an iteration of each
row that was trained here, the rows in turn, on a quiet machine. `table` prints what the records
that are there say, and draws AP against the seconds of a training.

study_rows.py has the rows, and study_job.py a job.
"""

import argparse
import fcntl
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quick_start import time_iterations
from record import ROOT, write_record
from study_comparison import load_schedules, pretrained_backbones
from study_report import draw, print_tables
from study_rows import ROWS
from study_schedule import RECORDS, Schedule, pretrained_weights
from study_training import identity, parse_options, start, study_config

SECONDS = RECORDS / "seconds.json"


def run(args: argparse.Namespace) -> int:
    """Run the jobs that are left; return the exit code."""
    schedule = Schedule(args.iterations, args.from_scratch)
    jobs = [(row, seed) for seed in args.seeds for row in args.rows]
    if all(schedule.record(*job).exists() for job in jobs):
        print(f"All have a record in {schedule.records}: remove one to repeat its run.")
        return 0
    if not args.from_scratch and not pretrain(args):
        return 1
    seconds: dict[str, list[float]] = {}
    failed = 0
    for number, (row, seed) in enumerate(jobs, start=1):
        with taken(schedule.folder(args.output, row, seed)) as is_mine:
            if not is_mine or schedule.record(row, seed).exists():
                continue
            begin = time.monotonic()
            is_done = run_job(args, schedule, row, seed)
            seconds.setdefault(row, []).append(time.monotonic() - begin)
        failed += not is_done
        left = [r for r, s in jobs[number:] if not schedule.record(r, s).exists()]
        ended = f"{'done' if is_done else 'FAILED'} in {seconds[row][-1] / 60:.1f} min"
        outlook = f"{len(left)} left, about {eta(left, seconds):.0f} min"
        print(f"[{number}/{len(jobs)}] {row}, seed {seed}: {ended}; {outlook}", flush=True)
    return 1 if failed else 0


def check_records(weights: Path) -> None:
    """Exit with a message if there are records of a backbone that these weights are not."""
    here = {identity(weights)} if weights.exists() else set()
    elsewhere = pretrained_backbones(load_schedules()).keys() - here
    if elsewhere:
        raise SystemExit(
            f"The records in {RECORDS} are of a pretrained backbone that {weights} is not, and "
            "rows from two backbones cannot be compared. Move its folders of records away first."
        )


def pretrain(args: argparse.Namespace) -> bool:
    """Pretrain the backbone, or wait for the process that does; return whether it is there."""
    weights = pretrained_weights(args.output)
    check_records(weights)
    with taken(weights.parent, wait=True):
        if not weights.exists():
            print("Pretraining the backbone ...", flush=True)
            if not run_script(args, "study_pretraining.py", weights.parent):
                print(f"It FAILED: {weights.parent / 'job.log'} says why.", flush=True)
    return weights.exists()


def eta(left: list[str], seconds: dict[str, list[float]]) -> float:
    """Return the minutes that rows will take: those of the same row, else the mean of all."""
    means = {row: statistics.mean(times) for row, times in seconds.items()}
    usual = statistics.mean(means.values())
    return sum(means.get(row, usual) for row in left) / 60


@contextmanager
def taken(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Take a job by its folder, unless another process has it; give whether this one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def run_job(args: argparse.Namespace, schedule: Schedule, row: str, seed: int) -> bool:
    """Run a job; return whether it came to its end."""
    options = ["--row", row, "--seed", str(seed), "--iterations", str(schedule.iterations)]
    options += ["--from-scratch"] if schedule.from_scratch else []
    folder = schedule.folder(args.output, row, seed)
    return run_script(args, "study_job.py", folder, *options)


def run_script(args: argparse.Namespace, name: str, folder: Path, *options: str) -> bool:
    """Run a script of the study, with a log in a folder; return whether it came to its end."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    command += ["--threads", str(args.threads), "--output", str(args.output)]
    with open(folder / "job.log", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            return process.wait() == 0
        except (KeyboardInterrupt, SystemExit):
            process.terminate()  # it writes a checkpoint
            process.wait()
            raise


def time_rows(args: argparse.Namespace) -> None:
    """Measure the seconds of an iteration of the rows whose weights are there."""
    start(args)
    schedule = Schedule(args.iterations, args.from_scratch)
    weights = {row: schedule.weights(args.output, row, args.seeds[0]) for row in args.rows}
    trainings = {row: (study_config(row), path) for row, path in weights.items() if path.exists()}
    write_record(SECONDS, {"seconds": time_iterations(trainings)})


def show(args: argparse.Namespace) -> None:
    """Print the tables of a schedule and draw its figure."""
    schedules, schedule = load_schedules(), Schedule(args.iterations, args.from_scratch)
    if schedule.name not in schedules:
        raise SystemExit(f"{schedule.records} has no record yet: benchmarks/study.py run")
    seconds = json.loads(SECONDS.read_text())["seconds"] if SECONDS.exists() else {}
    print_tables(schedules, schedule.name, seconds)
    if not seconds:
        print("\nNo figure: `study.py time` has not measured the seconds of an iteration.")
        return
    figure = args.figure or args.output / schedule.name / "figure.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw(schedules[schedule.name], seconds, schedule.iterations, figure)
    print(f"\nwrote {figure}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "time", "table"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--from-scratch", action="store_true", help="without pretrained backbone")
    parser.add_argument(
        "--figure",
        type=Path,
        help="where `table` draws; figure.png beside the folders of the runs if it is not given",
    )
    args = parse_options(parser)
    if args.command == "run":
        return run(args)
    if args.command == "time":
        time_rows(args)
    else:
        show(args)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
