"""Means of seeds, their standard errors, and differences between rows.

A difference has two kinds of error. Other seeds give other weights: the standard error over seeds.
Other images to evaluate on give another AP: the standard deviation of the paired bootstrap
(`study_bootstrap`). The error of a difference is the root of the sum of both squares.
"""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from study_bootstrap import REPLICATES
from study_rows import ROWS, Comparison
from study_schedule import RECORDS

Runs = dict[str, dict[int, dict]]  # records by row and seed


def load_schedules() -> dict[str, Runs]:
    """Return the records that are there by their schedules, the shortest trainings first.

    Raises:
        SystemExit: their trainings did not all start from the same pretrained backbone.
    """
    folders = {path.name: path for path in RECORDS.glob("*_iterations*/")}
    names = sorted(folders, key=lambda name: ("scratch" in name, int(name.split("_")[0])))
    schedules = {name: load_runs(folders[name]) for name in names}
    check_backbones(schedules)
    return schedules


def pretrained_backbones(schedules: dict[str, Runs]) -> dict[str, str]:
    """Return the pretrained backbones that trainings started from, each with one of its records."""
    return {
        record["backbone"]: f"{name}/{row}_{seed}.json"
        for name, runs in schedules.items()
        for row, of_row in runs.items()
        for seed, record in of_row.items()
        if record["backbone"]
    }


def check_backbones(schedules: dict[str, Runs]) -> None:
    """Exit with a message if records are of several pretrained backbones."""
    records = pretrained_backbones(schedules)
    if len(records) > 1:
        raise SystemExit(
            f"{RECORDS} mixes trainings from several pretrained backbones, among them "
            f"{' and '.join(records.values())}. They cannot be compared: move away the records of "
            'all but one ("backbone" tells them apart).'
        )


def load_runs(folder: Path) -> Runs:
    """Return the records of a folder, in the order of the rows and their seeds."""
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    by_row: Runs = {row: {} for row in ROWS}
    for record in sorted(records, key=lambda x: x["seed"]):
        by_row[record["row"]][record["seed"]] = record
    return {row: of_row for row, of_row in by_row.items() if of_row}


def aps(runs: Runs, row: str, evaluation: str, task: str) -> dict[int, float]:
    """Return AP in percent by seed; empty if there is no such run."""
    return {
        seed: record["evaluations"][evaluation][task]["AP"]
        for seed, record in runs.get(row, {}).items()
        if evaluation in record["evaluations"]
    }


def standard_error(values: list[float]) -> float:
    """Return that of the mean; NaN for a single value."""
    if len(values) < 2:
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Difference:
    """Of AP in percent, with its errors over seeds and over images."""

    value: float
    over_seeds: float
    over_images: float

    @property
    def error(self) -> float:
        return math.hypot(self.over_seeds, self.over_images)

    @property
    def verdict(self) -> str:
        """Whether the difference is beyond twice its error."""
        if math.isnan(self.error):
            return "one seed"
        if abs(self.value) <= 2 * self.error:
            return "not found"
        return "better" if self.value > 0 else "worse"


def difference(runs: Runs, comparison: Comparison, task: str) -> Difference | None:
    """Return what a comparison finds; None if one of its sides has not been run.

    Two ways to evaluate the same weights are compared seed by seed, others by their means.
    """
    new, old = (aps(runs, *side, task) for side in (comparison.new, comparison.old))
    if not new or not old:
        return None
    if comparison.new[0] == comparison.old[0]:
        over_seeds = standard_error([new[seed] - old[seed] for seed in new])
    else:
        over_seeds = math.hypot(*(standard_error(list(side.values())) for side in (new, old)))
    replicates = [_mean_replicates(runs, *side, task) for side in (comparison.new, comparison.old)]
    over_images = statistics.stdev(a - b for a, b in zip(*replicates, strict=True))
    value = statistics.mean(new.values()) - statistics.mean(old.values())
    return Difference(value, over_seeds, over_images)


def _mean_replicates(runs: Runs, row: str, evaluation: str, task: str) -> list[float]:
    """Return the means over seeds of each replicate's AP."""
    of_seeds = [
        record["evaluations"][evaluation][task]["bootstrap"] for record in runs[row].values()
    ]
    return [statistics.mean(of_seed[b] for of_seed in of_seeds) for b in range(REPLICATES)]
